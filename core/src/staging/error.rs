//! What staging can fail with.

use crate::storage::StorageError;
use std::{error::Error, io};

/// Why an operation of staging failed.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    /// The disk has no room, or would keep less than `staging.min_free`, or `staging.quota` is used up.
    #[error("staging is full")]
    Full,
    /// The body is longer than it may be.
    #[error("the body is longer than {limit} bytes")]
    TooLarge {
        /// The most it may have, in bytes.
        limit: u64,
    },
    /// The part has more or fewer bytes than it is to have.
    #[error("the part has not {expected} bytes but {found}")]
    WrongSize {
        expected: u64,
        /// At least, when there were more.
        found: u64,
    },
    /// The bytes under a key are not as many as the database says.
    #[error("{expected} bytes should be staged, and {found} are")]
    WrongLength { expected: u64, found: u64 },
    /// The body broke off: the client went away, or sent what HTTP does not allow.
    #[error("the body broke off")]
    Body(#[source] Box<dyn Error + Send + Sync>),
    /// Nothing is staged under the key.
    #[error("nothing is staged under this key")]
    Gone,
    /// Something is staged under the key already.
    #[error("something is staged under this key already")]
    Exists,
    /// The file system refused.
    #[error("the staging folder could not {action}")]
    Io {
        /// What was to be done, after «could not».
        action: &'static str,
        #[source]
        source: io::Error,
    },
    /// The bucket refused.
    #[error("staging in the bucket failed")]
    Storage(#[source] StorageError),
}

impl StagingError {
    /// True when the same call may succeed later without another body or key.
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

    /// Sorts what a file system says about a staged file.
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
