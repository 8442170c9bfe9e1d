//! An acknowledged upload: its row, written after its bytes are durable in staging and before the answer is sent.
//! Where the request has an `Idempotency-Key`, the answer is kept by the same transaction.
//!
//! A crash before the row leaves staging litter, which the sweep removes after a grace period; a crash after it
//! leaves a staged file without a job, which the sweep pushes.

use super::{FileName, staging_column};
use crate::{
    batches,
    config::ByteSize,
    context::Landfall,
    digest::Sha256Digest,
    idempotency::{Keep, KeepError},
    minutes::{self, Counted},
    storage::transfer::Piece,
    usage::{self, QuotaError},
};
use entity::{BatchId, FileId, Timestamp, file};
use sea_orm::{ConnectionTrait, DbErr, EntityTrait, IntoActiveModel};
use std::time::Duration;

/// What is known of a file when all its bytes are in staging.
#[derive(Clone, Debug)]
pub struct NewFile {
    pub id: FileId,
    pub owner: Option<String>,
    pub original_filename: FileName,
    pub content_type: String,
    pub declared_sha256: Option<Sha256Digest>,
    pub metadata: serde_json::Value,
    pub batch_id: Option<BatchId>,
    /// In their order, at least one; the file is as big as all of them.
    pub staged: Vec<Piece>,
    pub expires_in: Option<Duration>,
    pub traceparent: Option<String>,
}

/// Why a file cannot be taken in.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    #[error(transparent)]
    Batch(#[from] batches::JoinError),
    #[error(transparent)]
    Key(#[from] KeepError),
    #[error(transparent)]
    Quota(#[from] QuotaError),
    #[error("the file could not be recorded")]
    Database(#[from] DbErr),
}

/// Writes the row of a file whose bytes are durable in staging; the caller pushes its finalize job.
///
/// # Errors
/// [`AcceptError::Batch`] when its batch is unknown or closed, [`AcceptError::Quota`] when its owner would have too
/// much, [`AcceptError::Key`] when another request has taken its `Idempotency-Key` over; then nothing is written.
pub async fn accept(
    landfall: &Landfall,
    new: NewFile,
    keep: Option<Keep<file::Model>>,
) -> Result<file::Model, AcceptError> {
    let (clock, quota) = (&landfall.clock, landfall.config.uploads.owner_quota);
    let now = clock.now();
    let expires_at = new.expires_in.map(|ttl| clock.after(ttl));
    let row = landfall
        .db
        .write(move |transaction| {
            Box::pin(async move {
                let row = insert(transaction, new, now, expires_at, quota).await?;
                Keep::write(keep, transaction, &row).await?;
                Ok::<_, AcceptError>(row)
            })
        })
        .await?;
    let received = [
        (Counted::FilesReceived, 1),
        (Counted::BytesReceived, row.size_bytes.unsigned_abs()),
    ];
    minutes::count(&landfall.db, clock, &received);
    Ok(row)
}

async fn insert(
    transaction: &impl ConnectionTrait,
    new: NewFile,
    now: Timestamp,
    expires_at: Option<Timestamp>,
    quota: Option<ByteSize>,
) -> Result<file::Model, AcceptError> {
    if let Some(batch) = new.batch_id {
        batches::join(transaction, batch, new.owner.as_deref(), now).await?;
    }
    let size = staged_size(&new.staged);
    let row = file::Model {
        owner: new.owner,
        search_name: new.original_filename.search_form(),
        original_filename: new.original_filename.as_str().to_owned(),
        content_type: new.content_type,
        size_bytes: size,
        declared_sha256: new.declared_sha256.map(|digest| digest.to_string()),
        metadata: new.metadata,
        batch_id: new.batch_id,
        staging_key: Some(staging_column(&new.staged)),
        traceparent: new.traceparent,
        staged_at: Some(now),
        expires_at,
        ..file::Model::begun(new.id, file::FileStatus::Staged, now)
    };
    file::Entity::insert(row.clone().into_active_model())
        .exec_without_returning(transaction)
        .await?;
    usage::add(transaction, row.owner.as_deref(), row.id.0, size, quota).await?;
    Ok(row)
}

fn staged_size(staged: &[Piece]) -> i64 {
    i64::try_from(staged.iter().map(|piece| piece.size).sum::<u64>()).unwrap_or(i64::MAX)
}
