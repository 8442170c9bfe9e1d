//! Errors of staging.

use crate::storage::StorageError;
use std::{error::Error, io};

/// Why a staging operation failed.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    /// The disk is full, would keep less than `staging.min_free` free, or `staging.quota` is used up.
    #[error("staging is full")]
    Full,
    /// The body is longer than allowed.
    #[error("the body is longer than {limit} bytes")]
    TooLarge {
        /// Maximum length, in bytes.
        limit: u64,
    },
    /// The part does not have the expected size.
    #[error("the part has {found} bytes instead of {expected}")]
    WrongSize {
        expected: u64,
        /// A lower bound, if there were more.
        found: u64,
    },
    /// The number of bytes under a key is not the one in the database.
    #[error("{expected} bytes should be staged, but there are {found}")]
    WrongLength { expected: u64, found: u64 },
    /// The body was interrupted: the client disconnected, or sent invalid HTTP.
    #[error("the body was interrupted")]
    Body(#[source] Box<dyn Error + Send + Sync>),
    /// Nothing is staged under the key.
    #[error("nothing is staged under this key")]
    Gone,
    /// Something is staged under the key already.
    #[error("something is staged under this key already")]
    Exists,
    /// A file system error.
    #[error("the staging folder could not {action}")]
    Io {
        /// The action that failed, to follow "could not".
        action: &'static str,
        #[source]
        source: io::Error,
    },
    /// A bucket error.
    #[error("staging in the bucket failed")]
    Storage(#[source] StorageError),
}

impl StagingError {
    /// Whether the same call may succeed later with the same body and key.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Full | Self::Body(_) | Self::Io { .. } => true,
            Self::Storage(error) => error.is_transient(),
            Self::TooLarge { .. }
            | Self::WrongSize { .. }
            | Self::WrongLength { .. }
            | Self::Gone
            | Self::Exists => false,
        }
    }

    /// Maps a file system error on a staged file.
    pub(crate) fn io(action: &'static str) -> impl Fn(io::Error) -> Self + Copy {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            io::ErrorKind::NotFound => Self::Gone,
            io::ErrorKind::AlreadyExists => Self::Exists,
            _ => Self::Io { action, source },
        }
    }
}

impl From<StorageError> for StagingError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Full => Self::Full,
            StorageError::NotFound => Self::Gone,
            other => Self::Storage(other),
        }
    }
}
