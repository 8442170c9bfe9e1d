//! What can go wrong on a file's way into storage, and what that proves.
//!
//! **Architecture invariant.** Only the bytes themselves end a file: a wrong digest, a wrong size, a refused type.
//! Whatever the surroundings answer (a proxy's 404, a disabled key, a missing mount, a full or read-only disk) is a
//! fault that may pass, and is retried.

use crate::{
    files::PiecesError, media_policy::MediaPolicyError, storage::StorageError,
    transfer::TransferError,
};
use sea_orm::DbErr;

/// What failed on the way into storage.
#[derive(Debug, thiserror::Error)]
pub(super) enum FinalizeFault {
    #[error(transparent)]
    Transfer(#[from] TransferError),
    #[error("no URL can be made for the object")]
    Url(#[source] StorageError),
    #[error("the row does not say where the bytes wait")]
    Row(#[from] PiecesError),
    #[error(transparent)]
    NotAllowed(#[from] MediaPolicyError),
    #[error("the database does not say what the file was made of")]
    Database(#[from] DbErr),
}

/// What a fault proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultVerdict {
    /// The bytes themselves are at fault; the file fails with this code.
    Permanent(&'static str),
    /// Staging does not have the bytes the row lists. That proves something only while the marker of the installation
    /// is visible in the same place: an unmounted volume looks the same. The code is the one to fail with then.
    MissingBytes(&'static str),
    /// The surroundings are at fault.
    ClassifyError,
}

impl FinalizeFault {
    /// True when no request of the run may still be carried out: each was answered, or none was sent.
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
                FaultVerdict::ClassifyError
            }
        }
    }
}
