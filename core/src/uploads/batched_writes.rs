//! Batched writes of uploads: creating them, and completing small ones.
//!
//! Many clients create and complete small uploads concurrently; each kind is batched into shared transactions, so that
//! an upload costs a share of a few statements and of a commit. Uploads that the owner's quota or an `Idempotency-Key`
//! may reject are not batched; one that its batch of files rejects fails alone.

use super::{
    UploadError,
    complete::{ReceivedFile, StagedFile, stage_files},
    create::{NewUploadRows, insert_files, insert_uploads},
    single_append,
    writers::ActiveWriters,
};
use crate::{
    batcher::{BatchError, Batcher, ClassifyError},
    batches::{self, BatchMembership, JoinBatchError},
    clock::Clock,
    db::{self, Database},
    quota::{self, QuotaChange},
};
use entity::{
    Timestamp, UploadId,
    upload::{Column, Entity, Model, UploadStatus},
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    QueryTrait, RuntimeErr,
    sea_query::{Expr, LockBehavior, LockType},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// An upload whose first append contained all its bytes.
#[derive(Clone, Debug)]
pub(super) struct CompletedUpload {
    pub(super) upload: UploadId,
    pub(super) whole: ReceivedFile,
    /// When its row may be deleted.
    pub(super) expires_at: Timestamp,
}

/// Maximum number of small new uploads whose rows are cached for their first append. They are few, because each may
/// contain the client's metadata.
const MAX_RECENT: usize = 256;

/// Creates and completes uploads in batches; cheap to clone, one per process.
#[derive(Clone, Debug)]
pub struct UploadWrites {
    begins: Batcher<NewUploadRows, (), UploadError>,
    ends: Batcher<CompletedUpload, Option<(Model, StagedFile)>, UploadError>,
    /// Ids contain the time (UUIDv7, RFC 9562), so the first is the oldest.
    recent: Arc<Mutex<BTreeMap<UploadId, Model>>>,
    writers: ActiveWriters,
}

impl UploadWrites {
    /// Must be called within a Tokio runtime, because it starts two tasks, which end when the last clone is dropped.
    #[must_use]
    pub fn start(db: &Database, clock: &Clock) -> Self {
        let (begin_db, end_db, clock) = (db.clone(), db.clone(), clock.clone());
        Self {
            begins: Batcher::start(move |begun| {
                let db = begin_db.clone();
                Box::pin(async move {
                    db.write_repeatable(move |transaction| {
                        let begun = Arc::clone(&begun);
                        Box::pin(async move { begin(transaction, &begun).await })
                    })
                    .await
                })
            }),
            ends: Batcher::start(move |ended| {
                let (db, now) = (end_db.clone(), clock.now());
                Box::pin(async move {
                    db.write_repeatable(move |transaction| {
                        let ended = Arc::clone(&ended);
                        Box::pin(async move { end(transaction, &ended, now).await })
                    })
                    .await
                })
            }),
            recent: Arc::default(),
            writers: ActiveWriters::default(),
        }
    }

    pub(super) async fn begin(&self, begun: NewUploadRows) -> Result<(), UploadError> {
        let begun = Arc::new(begun);
        self.begins.run(Arc::clone(&begun)).await?;
        if single_append::may_be_whole(&begun.upload) && begun.batch().is_none() {
            let mut recent = self.recent();
            recent.insert(begun.upload.id, begun.upload.clone());
            if recent.len() > MAX_RECENT {
                recent.pop_first();
            }
        }
        Ok(())
    }

    /// Takes the row of a small upload that was recently created in this process, once. The row may have changed since,
    /// but a compare-and-set that relies on it needs no prior read of the database.
    pub(super) fn take_recent(&self, id: UploadId) -> Option<Model> {
        self.recent().remove(&id)
    }

    pub(super) fn writers(&self) -> &ActiveWriters {
        &self.writers
    }

    fn recent(&self) -> MutexGuard<'_, BTreeMap<UploadId, Model>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the updated upload and the file to be pushed, or `None` when any writer had acquired the upload before,
    /// or closed it; nothing is changed then.
    pub(super) async fn end(
        &self,
        ended: CompletedUpload,
    ) -> Result<Option<(Model, StagedFile)>, UploadError> {
        Ok(self.ends.run(Arc::new(ended)).await?)
    }
}

impl ClassifyError for UploadError {
    fn is_transient(&self) -> bool {
        matches!(self, Self::Database(error) | Self::Batch(JoinBatchError::Database(error)) if error.is_transient())
    }
}

impl From<BatchError<Self>> for UploadError {
    fn from(error: BatchError<Self>) -> Self {
        match error {
            BatchError::Failed(shared) => match &*shared {
                Self::Closed(status) => Self::Closed(*status),
                Self::Batch(JoinBatchError::Unknown(id)) => {
                    Self::Batch(JoinBatchError::Unknown(*id))
                }
                Self::Batch(JoinBatchError::Closed(id)) => Self::Batch(JoinBatchError::Closed(*id)),
                Self::Batch(JoinBatchError::Database(error)) => Self::Database(db::copy(error)),
                Self::Database(error) => Self::Database(db::copy(error)),
                other => Self::Database(DbErr::Custom(other.to_string())),
            },
            BatchError::Panicked => Self::Database(db::panicked()),
            other => Self::Database(DbErr::Conn(RuntimeErr::Internal(other.to_string()))),
        }
    }
}

async fn begin(
    transaction: &impl ConnectionTrait,
    begun: &[Arc<NewUploadRows>],
) -> Result<Vec<()>, UploadError> {
    let joins = begun.iter().filter_map(|begun| {
        Some(BatchMembership {
            batch: begun.batch()?,
            owner: begun.upload.owner.as_deref(),
        })
    });
    if let Some(first) = begun.first() {
        batches::join_all(transaction, joins, first.upload.created_at).await?;
    }
    let sizes = begun.iter().map(|begun| QuotaChange {
        owner: begun.upload.owner.as_deref(),
        id: begun.upload.id.0,
        bytes: quota::initial_usage(&begun.upload, begun.file.as_ref()),
    });
    quota::change_all(transaction, sizes).await?;
    insert_files(
        transaction,
        begun.iter().filter_map(|begun| begun.file.as_ref()),
    )
    .await?;
    insert_uploads(transaction, begun.iter().map(|begun| &begun.upload)).await?;
    Ok(vec![(); begun.len()])
}

async fn end(
    transaction: &impl ConnectionTrait,
    ended: &[Arc<CompletedUpload>],
    now: Timestamp,
) -> Result<Vec<Option<(Model, StagedFile)>>, UploadError> {
    let mut complete = compare_and_set(transaction, ended, now).await?;
    // Each is taken once, even if it was requested twice.
    let uploads: Vec<Option<Model>> = ended
        .iter()
        .map(|one| complete.remove(&one.upload))
        .collect();
    let wholes: Vec<ReceivedFile> = ended
        .iter()
        .zip(&uploads)
        .filter(|(_, upload)| upload.is_some())
        .map(|(one, _)| one.whole.clone())
        .collect();
    let mut staged = stage_files(transaction, &wholes, now).await?.into_iter();
    Ok(uploads
        .into_iter()
        .map(|upload| upload.and_then(|upload| Some((upload, staged.next()?))))
        .collect())
}

/// Completes the uploads that no writer has ever acquired.
async fn compare_and_set(
    transaction: &impl ConnectionTrait,
    ended: &[Arc<CompletedUpload>],
    now: Timestamp,
) -> Result<HashMap<UploadId, Model>, DbErr> {
    // Locked rows are skipped rather than waited for, because the holder of the lock is about to change them.
    let untouched = Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(Column::Id.is_in(ended.iter().map(|one| one.upload)))
        .filter(Column::Status.eq(UploadStatus::Init))
        .filter(Column::Fence.eq(0))
        .order_by_asc(Column::Id)
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .into_query();
    let expires_at = ended.iter().map(|one| one.expires_at).max().unwrap_or(now);
    let complete = Entity::update_many()
        .col_expr(Column::Status, Expr::value(UploadStatus::Complete))
        .col_expr(Column::BytesReceived, Expr::col(Column::TotalSizeBytes))
        .col_expr(Column::UpdatedAt, Expr::value(now))
        .col_expr(Column::ExpiresAt, Expr::value(expires_at))
        .filter(Column::Id.in_subquery(untouched))
        .exec_with_returning(transaction)
        .await?;
    Ok(complete
        .into_iter()
        .map(|upload| (upload.id, upload))
        .collect())
}
