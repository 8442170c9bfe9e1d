//! Errors of a transfer.

use crate::{digest::Sha256Digest, staging::StagingError, storage::StorageError};

/// Why a transfer failed.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// Some or all of the staged bytes are missing.
    #[error("the staged bytes are gone")]
    StagingGone,
    /// Fewer bytes are staged than the database says.
    #[error("{expected} bytes should be staged, but there are {found}")]
    SizeMismatch { expected: u64, found: u64 },
    /// The bytes do not match the client's digest. Nothing was stored.
    #[error("the bytes have the SHA-256 {found}, not {expected}")]
    DigestMismatch {
        expected: Sha256Digest,
        found: Sha256Digest,
    },
    /// Another object exists at the key: reserve another key and retry.
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
    /// Whether the same transfer may succeed later. False for [`Self::KeyTaken`], which requires another key.
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
