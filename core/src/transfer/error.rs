//! What a transfer can fail with.

use crate::{digest::Sha256Digest, staging::StagingError, storage::StorageError};

/// Why staged bytes did not become an object.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The staged bytes are not there any more, or not all of them.
    #[error("the staged bytes are gone")]
    StagingGone,
    /// Fewer bytes are staged than the database says.
    #[error("{expected} bytes should be staged, and {found} are")]
    SizeMismatch { expected: u64, found: u64 },
    /// The bytes are not those the client announced. Nothing was stored.
    #[error("the bytes have the SHA-256 {found}, not {expected}")]
    DigestMismatch {
        expected: Sha256Digest,
        found: Sha256Digest,
    },
    /// Another object lies at the key: reserve another one and try again.
    #[error("another object lies at the storage key")]
    KeyTaken,
    /// Staging failed.
    #[error("staging could not be read")]
    Staging(#[source] StagingError),
    /// Storage failed.
    #[error("the object could not be stored")]
    Storage(#[source] StorageError),
}

impl TransferError {
    /// True when the same transfer may succeed later. False too for [`Self::KeyTaken`], which only another key ends.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::StagingGone
            | Self::SizeMismatch { .. }
            | Self::DigestMismatch { .. }
            | Self::KeyTaken => false,
            Self::Staging(error) => error.is_transient(),
            Self::Storage(error) => error.is_transient(),
        }
    }
}

impl From<StagingError> for TransferError {
    fn from(error: StagingError) -> Self {
        match error {
            StagingError::Gone => Self::StagingGone,
            StagingError::WrongLength { expected, found } => Self::SizeMismatch { expected, found },
            other => Self::Staging(other),
        }
    }
}

impl From<StorageError> for TransferError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::KeyTaken => Self::KeyTaken,
            other => Self::Storage(other),
        }
    }
}
