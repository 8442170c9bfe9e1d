//! Errors of uploads.

use super::Ranges;
use crate::transfer::TransferError;
use crate::{
    batches, files::PiecesError, idempotency::RecordResponseError, media_policy, quota::QuotaError,
    staging::StagingError, upload_links::UseLinkError,
};
use entity::upload::UploadStatus;
use sea_orm::{ActiveEnum, DbErr};
use std::error::Error;

/// Why an operation on an upload failed. Bytes received before are kept, unless stated otherwise.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// Unknown, another owner's, or of a different kind than the operation requires.
    #[error("there is no such upload")]
    NotFound,
    #[error("there is no part {number}; the upload has the parts 1 to {total}")]
    NoSuchPart { number: u32, total: u32 },
    #[error("the upload is {} and accepts no more bytes", .0.to_value())]
    Closed(UploadStatus),
    /// A final upload consists of its partial uploads.
    #[error("a final upload accepts no bytes of its own")]
    Joined,
    #[error("the upload is at offset {expected}, not at {provided}")]
    WrongOffset { expected: u64, provided: u64 },
    /// Another writer is active; a retry may succeed.
    #[error("another request is writing to the upload")]
    Locked,
    /// A newer request took over the upload; the bytes before are kept.
    #[error("a newer request has taken over the upload")]
    Preempted,
    #[error("at most {limit} bytes are allowed here")]
    TooLarge {
        /// In bytes.
        limit: u64,
    },
    #[error("an upload needs at least one byte")]
    Empty,
    #[error(transparent)]
    Quota(#[from] QuotaError),
    #[error(transparent)]
    NotAllowed(#[from] media_policy::MediaPolicyError),
    /// The length can be set once, and not below the offset.
    #[error("the length of the upload is {}, it cannot become {given}", known.map_or_else(|| format!("at least {offset}"), |known| known.to_string()))]
    LengthFixed {
        known: Option<u64>,
        offset: u64,
        given: u64,
    },
    /// The bytes are discarded.
    #[error("the checksum does not match the bytes")]
    ChecksumMismatch,
    #[error("the part must have {expected} bytes")]
    SizeMismatch {
        /// In bytes.
        expected: u64,
    },
    /// The bytes are discarded.
    #[error("the digest does not match the bytes of the part")]
    DigestMismatch,
    #[error("different bytes were received for this part before")]
    PartConflict,
    #[error("the parts {0} are missing")]
    PartsMissing(Ranges),
    /// A list of partial uploads that cannot be concatenated.
    #[error("{0}")]
    CannotJoin(String),
    #[error("no bytes were received for too long")]
    Stalled,
    #[error("the body was interrupted")]
    BrokenOff(#[source] Box<dyn Error + Send + Sync>),
    #[error(transparent)]
    Batch(#[from] batches::JoinBatchError),
    /// No upload was created.
    #[error(transparent)]
    Link(UseLinkError),
    /// No upload was created.
    #[error(transparent)]
    Key(#[from] RecordResponseError),
    #[error("the batch could not be updated")]
    Outbox(#[from] crate::outbox::WriteError),
    #[error("the bytes could not be staged")]
    Staging(#[source] StagingError),
    #[error("the bytes received before cannot be read")]
    Unreadable(#[source] Box<TransferError>),
    #[error("the bytes of the upload are not known")]
    Pieces(#[from] PiecesError),
    #[error("the upload could not be recorded")]
    Database(#[from] DbErr),
    #[error("the writer of the upload ended unexpectedly")]
    Lost(#[source] tokio::task::JoinError),
}

impl UploadError {
    /// Converts the error that ended a body: of its connection, or because its first bytes are not allowed.
    pub(super) fn ended_by(error: Box<dyn Error + Send + Sync>) -> Self {
        match error.downcast::<media_policy::MediaPolicyError>() {
            Ok(refused) => Self::NotAllowed(*refused),
            Err(error) => Self::BrokenOff(error),
        }
    }
}

impl From<UseLinkError> for UploadError {
    fn from(error: UseLinkError) -> Self {
        match error {
            UseLinkError::Database(error) => Self::Database(error),
            other => Self::Link(other),
        }
    }
}

impl From<StagingError> for UploadError {
    fn from(error: StagingError) -> Self {
        match error {
            StagingError::TooLarge { limit } => Self::TooLarge { limit },
            StagingError::WrongSize { expected, .. } => Self::SizeMismatch { expected },
            StagingError::Body(error) => Self::ended_by(error),
            other => Self::Staging(other),
        }
    }
}
