//! An acknowledged upload: its row, written after its bytes are durable in staging and before the answer is sent.
//!
//! A crash before the row leaves staging litter, which the sweep removes after a grace period; a crash after it
//! leaves a staged file without a job, which the sweep pushes.

use super::{FileName, staging_column};
use crate::{
    batches,
    clock::Clock,
    db::Database,
    digest::Sha256Digest,
    minutes::{self, Counted},
    storage::transfer::Piece,
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
    #[error("the file could not be recorded")]
    Database(#[from] DbErr),
}

/// Writes the row of a file whose bytes are durable in staging; the caller pushes its finalize job.
///
/// # Errors
/// [`AcceptError::Batch`] when its batch is unknown or closed; then nothing is written.
pub async fn accept(
    db: &Database,
    clock: &Clock,
    new: NewFile,
) -> Result<file::Model, AcceptError> {
    let now = clock.now();
    let expires_at = new.expires_in.map(|ttl| clock.after(ttl));
    let row = db
        .write(move |transaction| {
            Box::pin(async move { insert(transaction, new, now, expires_at).await })
        })
        .await?;
    let received = [
        (Counted::FilesReceived, 1),
        (Counted::BytesReceived, row.size_bytes.unsigned_abs()),
    ];
    minutes::count(db, clock, &received);
    Ok(row)
}

async fn insert(
    transaction: &impl ConnectionTrait,
    new: NewFile,
    now: Timestamp,
    expires_at: Option<Timestamp>,
) -> Result<file::Model, AcceptError> {
    if let Some(batch) = new.batch_id {
        batches::join(transaction, batch, new.owner.as_deref(), now).await?;
    }
    let row = file::Model {
        id: new.id,
        owner: new.owner,
        status: file::FileStatus::Staged,
        search_name: new.original_filename.search_form(),
        original_filename: new.original_filename.as_str().to_owned(),
        content_type: new.content_type,
        size_bytes: staged_size(&new.staged),
        sha256: None,
        declared_sha256: new.declared_sha256.map(|digest| digest.to_string()),
        metadata: new.metadata,
        batch_id: new.batch_id,
        staging_key: Some(staging_column(&new.staged)),
        storage_key: None,
        finalize_attempts: 0,
        finalize_crashes: 0,
        next_attempt_at: None,
        lease_owner: None,
        lease_expires_at: None,
        claimed_at: None,
        claimed_by: None,
        landed_at: None,
        error_code: None,
        error_message: None,
        traceparent: new.traceparent,
        created_at: now,
        updated_at: now,
        staged_at: Some(now),
        stored_at: None,
        expires_at,
        expiring_announced_at: None,
        deleted_at: None,
    };
    file::Entity::insert(row.clone().into_active_model())
        .exec_without_returning(transaction)
        .await?;
    Ok(row)
}

fn staged_size(staged: &[Piece]) -> i64 {
    i64::try_from(staged.iter().map(|piece| piece.size).sum::<u64>()).unwrap_or(i64::MAX)
}
