//! Accepting an upload: its row is written after its bytes are durable in staging and before the response is sent. If
//! the request has an `Idempotency-Key`, the response is stored in the same transaction.
//!
//! A crash before the commit leaves staged bytes without a row, which the sweep deletes after a grace period; a crash
//! after it leaves a staged file without a job, which the sweep pushes.

use super::{FileName, staging_column};
use crate::{
    activity::{self, ActivityMetric},
    app::App,
    batcher::{Batch, BatchError, Batcher, ClassifyError},
    batches::{self, BatchMembership, JoinBatchError},
    clock::Clock,
    db::{self, Database},
    digest::Sha256Digest,
    idempotency::{PendingResponse, RecordResponseError},
    quota::{self, QuotaAddition, QuotaChange, QuotaError, ReservationId},
    staging::Piece,
    upload_links::{self, LinkUse, UseLinkError},
};
use entity::{BatchId, FileId, file};
use sea_orm::{ConnectionTrait, DbErr, EntityTrait, IntoActiveModel};
use std::{sync::Arc, time::Duration};

/// A file whose bytes are all staged.
#[derive(Clone, Debug)]
pub struct NewFile {
    pub id: FileId,
    pub owner: Option<String>,
    pub original_filename: FileName,
    pub content_type: String,
    pub declared_sha256: Option<Sha256Digest>,
    /// The digest of the bytes as they were received.
    pub staged_sha256: Sha256Digest,
    pub metadata: serde_json::Value,
    pub batch_id: Option<BatchId>,
    /// In order, at least one; their sizes add up to the size of the file.
    pub staged: Vec<Piece>,
    pub expires_in: Option<Duration>,
    pub traceparent: Option<String>,
    /// The reservation for these bytes in the owner's quota.
    pub reservation: Option<ReservationId>,
    /// The upload link it was sent by.
    pub link: Option<LinkUse>,
}

/// Why a file cannot be accepted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    #[error(transparent)]
    Batch(#[from] JoinBatchError),
    #[error(transparent)]
    Key(#[from] RecordResponseError),
    #[error(transparent)]
    Quota(#[from] QuotaError),
    #[error(transparent)]
    Link(UseLinkError),
    #[error("the file could not be recorded")]
    Database(#[from] DbErr),
}

impl From<UseLinkError> for AcceptError {
    fn from(error: UseLinkError) -> Self {
        match error {
            UseLinkError::Database(error) => Self::Database(error),
            other => Self::Link(other),
        }
    }
}

impl ClassifyError for AcceptError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Database(error) | Self::Batch(JoinBatchError::Database(error)) => {
                error.is_transient()
            }
            Self::Batch(_) | Self::Key(_) | Self::Quota(_) | Self::Link(_) => false,
        }
    }
}

impl From<BatchError<Self>> for AcceptError {
    fn from(error: BatchError<Self>) -> Self {
        let BatchError::Failed(shared) = &error else {
            return Self::Database(error.into_database());
        };
        match &**shared {
            Self::Batch(JoinBatchError::Unknown(id)) => Self::Batch(JoinBatchError::Unknown(*id)),
            Self::Batch(JoinBatchError::Closed(id)) => Self::Batch(JoinBatchError::Closed(*id)),
            Self::Batch(JoinBatchError::Database(error)) | Self::Database(error) => {
                Self::Database(db::copy(error))
            }
            Self::Key(_) | Self::Quota(_) | Self::Link(_) => {
                Self::Database(DbErr::Custom(shared.to_string()))
            }
        }
    }
}

/// Inserts the rows of accepted files, batching those of concurrent uploads into one statement; cheap to clone, one per
/// process.
#[derive(Clone, Debug)]
pub struct FileIntake(Batcher<file::Model, (), AcceptError>);

impl FileIntake {
    /// Must be called within a Tokio runtime, because it starts a task, which ends when the last clone is dropped.
    #[must_use]
    pub fn start(db: &Database) -> Self {
        let db = db.clone();
        Self(Batcher::start(move |rows: Batch<file::Model>| {
            let db = db.clone();
            Box::pin(async move {
                let answers = vec![(); rows.len()];
                db.write_repeatable(move |transaction| {
                    let rows = Arc::clone(&rows);
                    Box::pin(async move { insert_together(transaction, &rows).await })
                })
                .await?;
                Ok(answers)
            })
        }))
    }
}

/// Inserts the row of a file whose bytes are durable in staging. The caller must push its finalize job.
///
/// # Errors
/// [`AcceptError::Batch`] when its batch is unknown or closed, [`AcceptError::Quota`] when its owner's quota would be
/// exceeded, [`AcceptError::Link`] when its upload link accepts no further file, [`AcceptError::Key`] when another request
/// has taken over its `Idempotency-Key`; nothing is written then.
pub async fn accept(
    app: &App,
    new: NewFile,
    response: Option<PendingResponse<file::Model>>,
) -> Result<file::Model, AcceptError> {
    let (clock, quota) = (&app.clock, app.config.uploads.owner_quota);
    let (reserved, link) = (new.reservation, new.link);
    let row = row(new, clock);
    // In a batch with others, unless the insert may still be rejected.
    let is_certain = link.is_none() && (row.owner.is_none() || quota.is_none());
    if response.is_none() && is_certain {
        app.intake.0.run(Arc::new(row.clone())).await?;
    } else {
        let row = row.clone();
        let alone = app.db.write(move |transaction| {
            Box::pin(async move {
                join_batch(transaction, &row).await?;
                let addition = QuotaAddition {
                    owner: row.owner.as_deref(),
                    id: row.id.0,
                    bytes: quota::file_usage(&row),
                    quota,
                    reserved,
                    now: row.created_at,
                };
                quota::add(transaction, addition).await?;
                if let Some(link) = link {
                    upload_links::claim(transaction, link, row.id, false).await?;
                }
                insert(transaction, [&row]).await?;
                PendingResponse::write(response, transaction, &row).await?;
                Ok::<_, AcceptError>(())
            })
        });
        alone.await?;
    }
    let received = [
        (ActivityMetric::FilesReceived, 1),
        (ActivityMetric::BytesReceived, row.size_bytes.unsigned_abs()),
    ];
    activity::count(&app.db, clock, &received);
    Ok(row)
}

async fn join_batch(
    transaction: &impl ConnectionTrait,
    row: &file::Model,
) -> Result<(), AcceptError> {
    if let Some(batch) = row.batch_id {
        batches::join(transaction, batch, row.owner.as_deref(), row.created_at).await?;
    }
    Ok(())
}

/// Inserts all rows, or returns why one of them cannot be accepted.
async fn insert_together(
    transaction: &impl ConnectionTrait,
    rows: &[Arc<file::Model>],
) -> Result<(), AcceptError> {
    let joins = rows.iter().filter_map(|row| {
        Some(BatchMembership {
            batch: row.batch_id?,
            owner: row.owner.as_deref(),
        })
    });
    if let Some(first) = rows.first() {
        batches::join_all(transaction, joins, first.created_at).await?;
    }
    Ok(insert_counted(transaction, rows).await?)
}

/// Inserts rows that were checked before.
async fn insert_counted(
    transaction: &impl ConnectionTrait,
    rows: &[Arc<file::Model>],
) -> Result<(), DbErr> {
    let sizes = rows.iter().map(|row| QuotaChange {
        owner: row.owner.as_deref(),
        id: row.id.0,
        bytes: quota::file_usage(row),
    });
    quota::change_all(transaction, sizes).await?;
    insert(transaction, rows.iter().map(AsRef::as_ref)).await
}

async fn insert<'a>(
    transaction: &impl ConnectionTrait,
    rows: impl IntoIterator<Item = &'a file::Model>,
) -> Result<(), DbErr> {
    let models = rows.into_iter().cloned();
    file::Entity::insert_many(models.map(IntoActiveModel::into_active_model))
        .exec_without_returning(transaction)
        .await
        .map(drop)
}

fn row(new: NewFile, clock: &Clock) -> file::Model {
    let now = clock.now();
    file::Model {
        size_bytes: staged_size(&new.staged),
        owner: new.owner,
        search_name: new.original_filename.search_form(),
        original_filename: new.original_filename.as_str().to_owned(),
        content_type: new.content_type,
        declared_sha256: new.declared_sha256.map(|digest| digest.to_string()),
        staged_sha256: Some(new.staged_sha256.to_string()),
        metadata: new.metadata,
        batch_id: new.batch_id,
        staging_key: Some(staging_column(new.staged.iter().copied().map(Into::into))),
        traceparent: new.traceparent,
        staged_at: Some(now),
        expires_at: new.expires_in.map(|ttl| clock.after(ttl)),
        ..file::Model::begun(new.id, file::FileStatus::Staged, now)
    }
}

fn staged_size(staged: &[Piece]) -> i64 {
    i64::try_from(staged.iter().map(|piece| piece.size).sum::<u64>()).unwrap_or(i64::MAX)
}
