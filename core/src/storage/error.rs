//! Errors of storage, and whether a retry can help.

use crate::installation::MarkerError;
use std::{error::Error, io};

/// Why a storage operation failed. No message contains a key, a signed URL or a secret.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The object does not exist.
    #[error("there is no such object in storage")]
    NotFound,
    /// There is an object at the key that is not ours; it was left alone.
    #[error("another object lies at this storage key")]
    KeyTaken,
    /// The object differs from what was sent.
    #[error("the stored object is not what was sent: {0}")]
    NotAsSent(String),
    /// The storage disk, or its quota, is full.
    #[error("the storage disk is full")]
    Full,
    /// The bucket is not verified to belong to this installation.
    #[error("storage cannot be used")]
    Marker(#[source] MarkerError),
    /// A file system error.
    #[error("the storage folder could not {action}")]
    Io {
        /// The action that failed, to follow "could not".
        action: &'static str,
        #[source]
        source: io::Error,
    },
    /// There was no response, or none in time.
    #[error("the object store did not respond to the request to {action}")]
    NoAnswer {
        /// The action that failed, to follow "to".
        action: &'static str,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// An error response.
    #[error("the object store answered {status} {code} to the request to {action}: {message}")]
    Refused {
        /// The action that failed, to follow "to".
        action: &'static str,
        /// The HTTP status.
        status: u16,
        /// The S3 error code; empty if the response has none.
        code: String,
        /// The store's error message.
        message: String,
    },
    /// A setting is wrong.
    #[error("{key} ({environment}): {problem}")]
    Setting {
        /// The key in `config.toml`.
        key: &'static str,
        /// The name in the environment.
        environment: &'static str,
        /// What is wrong with it, and how to correct it.
        problem: String,
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
}

impl StorageError {
    /// Whether this is a fault of the environment, so that the same call may succeed once it is fixed.
    ///
    /// This includes every error response, whatever its status: a proxy returns 404 or 405 while the store restarts, a
    /// disabled key 400, and operators fix both. Files must not fail because of them.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::NotFound | Self::KeyTaken => false,
            Self::NotAsSent(_)
            | Self::Full
            | Self::Marker(_)
            | Self::NoAnswer { .. }
            | Self::Setting { .. }
            | Self::Io { .. }
            | Self::Refused { .. } => true,
        }
    }

    /// Whether the store has responded, so that it will not carry out the request later. A gateway that gives up on the
    /// store responds with 500, 502 or 504, which does not prove that.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        match self {
            Self::NoAnswer { .. } => false,
            Self::Refused { status, code, .. } => {
                !(matches!(status, 500 | 502 | 504) || *status >= 500 && code.is_empty())
            }
            Self::NotFound
            | Self::KeyTaken
            | Self::NotAsSent(_)
            | Self::Full
            | Self::Marker(_)
            | Self::Io { .. }
            | Self::Setting { .. } => true,
        }
    }

    /// Maps a file system error, distinguishing a full disk.
    pub(crate) fn io(action: &'static str) -> impl Fn(io::Error) -> Self + Copy {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io { action, source },
        }
    }
}
