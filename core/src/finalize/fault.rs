//! Faults on a file's way into storage, and what they prove.
//!
//! **Architecture invariant.** Only the bytes themselves can fail a file permanently: a wrong digest, a wrong size, a
//! disallowed type. Anything reported by the environment (a proxy's 404, a disabled key, a missing mount, a full or
//! read-only disk) is transient and is retried.

use crate::{
    files::PiecesError, media_policy::MediaPolicyError, storage::StorageError,
    transfer::TransferError,
};
use sea_orm::DbErr;

/// A fault on the way into storage.
#[derive(Debug, thiserror::Error)]
pub(super) enum FinalizeFault {
    #[error(transparent)]
    Transfer(#[from] TransferError),
    #[error("no URL can be made for the object")]
    Url(#[source] StorageError),
    #[error("the row does not say where the bytes are staged")]
    Row(#[from] PiecesError),
    #[error(transparent)]
    NotAllowed(#[from] MediaPolicyError),
    #[error("the database does not say how the file was uploaded")]
    Database(#[from] DbErr),
}

/// What a fault proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultVerdict {
    /// The bytes themselves are at fault; the file fails with this error code.
    Permanent(&'static str),
    /// Staging lacks bytes that the row lists. That proves something only while the installation's marker is visible
    /// there, because an unmounted volume looks the same. The file then fails with this error code.
    MissingBytes(&'static str),
    /// The environment is at fault; the run is retried.
    Transient,
}

impl FinalizeFault {
    /// Whether no request of the run can still be carried out: each was answered, or none was sent.
    pub(super) fn is_answered(&self) -> bool {
        match self {
            Self::Transfer(TransferError::Storage(error)) => error.is_answered(),
            Self::Transfer(_)
            | Self::Url(_)
            | Self::Row(_)
            | Self::NotAllowed(_)
            | Self::Database(_) => true,
        }
    }

    pub(super) fn judge(&self) -> FaultVerdict {
        match self {
            Self::NotAllowed(_) => FaultVerdict::Permanent("type_not_allowed"),
            Self::Transfer(TransferError::DigestMismatch { .. }) => {
                FaultVerdict::Permanent("digest_mismatch")
            }
            Self::Transfer(TransferError::StagingGone) => {
                FaultVerdict::MissingBytes("staging_gone")
            }
            Self::Transfer(TransferError::SizeMismatch { .. }) => {
                FaultVerdict::MissingBytes("size_mismatch")
            }
            Self::Transfer(_) | Self::Url(_) | Self::Row(_) | Self::Database(_) => {
                FaultVerdict::Transient
            }
        }
    }
}
