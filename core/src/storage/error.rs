//! What storage can fail with, and whether trying again can help.

use crate::installation::MarkerError;
use std::{error::Error, io};

/// Why an operation of storage failed. None of its texts carries a key, a signed URL or a secret.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The object is not there.
    #[error("there is no such object in storage")]
    NotFound,
    /// Something that is not ours lies at the key; it was left alone.
    #[error("another object lies at this storage key")]
    KeyTaken,
    /// The object is not what was sent.
    #[error("the stored object is not what was sent: {0}")]
    NotAsSent(String),
    /// The disk of storage, or the quota on it, is full.
    #[error("the storage disk is full")]
    Full,
    /// The bucket is not known to be this installation's.
    #[error("storage cannot be used")]
    Marker(#[source] MarkerError),
    /// The file system refused.
    #[error("the storage folder could not {action}")]
    Io {
        /// What was to be done, after «could not».
        action: &'static str,
        #[source]
        source: io::Error,
    },
    /// No answer, or none in time.
    #[error("the object store gave no answer when asked to {action}")]
    NoAnswer {
        /// What was to be done, after «to».
        action: &'static str,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// An answer that says no.
    #[error("the object store answered {status} {code} when asked to {action}: {message}")]
    Refused {
        /// What was to be done, after «to».
        action: &'static str,
        /// The HTTP status.
        status: u16,
        /// The S3 error code; empty when the answer has none.
        code: String,
        /// What the store says about it.
        message: String,
    },
    /// A setting is wrong.
    #[error("{key} ({environment}): {problem}")]
    Setting {
        /// The key in `config.toml`.
        key: &'static str,
        /// The name in the environment.
        environment: &'static str,
        /// What is wrong with it, and what would be right.
        problem: String,
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
}

impl StorageError {
    /// True for a fault of the surroundings: the same call may succeed once they are in order again.
    ///
    /// Every answer that says no is one, whatever its status: a proxy answers 404 or 405 while the store restarts, a
    /// disabled key 400, and operators correct both. Files must not fail over them meanwhile.
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

    /// True when the store has answered, so that it will not carry the request out later. A gateway that gives up on
    /// the store answers 500, 502 or 504, and says nothing about that.
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

    /// Tells a full disk from other failures of the file system.
    pub(crate) fn io(action: &'static str) -> impl Fn(io::Error) -> Self + Copy {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io { action, source },
        }
    }
}
