//! Batches: groups of files that are counted exactly and announced once, when the last file is final.
//!
//! Every count changes in the transaction that changes the file, by one UPDATE of the batch's row. The row lock
//! serializes concurrent files, so exactly one of them sees that it was the last.
//!
//! A transaction takes these locks before all others, in the order of batch ids (see ARCHITECTURE.md). Files that join
//! or become final at the same moment share one UPDATE.

mod lifecycle;

use crate::outbox::{self, BatchComplete, NewEvent, WrittenEvent};
use entity::{
    BatchId, Timestamp,
    batch::{BatchStatus, Column, Entity, Model},
};
pub use lifecycle::{
    CreateBatchError, EMPTY_BATCH_RETENTION, FinalizeBatchError, MAX_EMPTY_BATCHES, create,
    finalize, get,
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbBackend, DbErr, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect,
    sea_query::{Expr, ExprTrait, LockType},
};
use std::collections::{BTreeMap, BTreeSet};

/// Why a file cannot join a batch.
#[derive(Debug, thiserror::Error)]
pub enum JoinBatchError {
    #[error("there is no batch {0}")]
    Unknown(BatchId),
    #[error("the batch {0} is closed to further files")]
    Closed(BatchId),
    #[error("the batch could not be changed")]
    Database(#[from] DbErr),
}

/// The final outcome of a file of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileOutcome {
    Stored,
    Failed,
}

/// A file that joins an open batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BatchMembership<'a> {
    pub(crate) batch: BatchId,
    /// `None` may join any owner's batch.
    pub(crate) owner: Option<&'a str>,
}

/// Counts one more file in an open batch of this owner.
///
/// # Errors
/// [`JoinBatchError::Unknown`] for another owner's batch as well.
pub async fn join(
    transaction: &impl ConnectionTrait,
    id: BatchId,
    owner: Option<&str>,
    now: Timestamp,
) -> Result<(), JoinBatchError> {
    join_all(transaction, [BatchMembership { batch: id, owner }], now).await
}

/// [`join`] for several files. Their batches stay locked until the transaction ends.
///
/// # Errors
/// As [`join`], for the first file that cannot join; the transaction must then be rolled back.
pub(crate) async fn join_all<'a>(
    transaction: &impl ConnectionTrait,
    joins: impl IntoIterator<Item = BatchMembership<'a>>,
    now: Timestamp,
) -> Result<(), JoinBatchError> {
    let mut counts: BTreeMap<BatchMembership<'_>, i64> = BTreeMap::new();
    for join in joins {
        *counts.entry(join).or_default() += 1;
    }
    for (join, count) in counts {
        add_files(transaction, join, count, now).await?;
    }
    Ok(())
}

async fn add_files(
    transaction: &impl ConnectionTrait,
    join: BatchMembership<'_>,
    count: i64,
    now: Timestamp,
) -> Result<(), JoinBatchError> {
    let BatchMembership { batch: id, owner } = join;
    let mut open = Entity::update_many()
        .col_expr(Column::TotalFiles, Expr::col(Column::TotalFiles).add(count))
        .col_expr(Column::Status, Expr::value(BatchStatus::InProgress))
        .col_expr(Column::UpdatedAt, Expr::value(now))
        .filter(Column::Id.eq(id))
        .filter(Column::FinalizedAt.is_null());
    if let Some(owner) = owner {
        open = open.filter(Column::Owner.eq(owner));
    }
    if open.exec(transaction).await?.rows_affected == 1 {
        return Ok(());
    }
    let known = Entity::find_by_id(id).one(transaction).await?;
    match known.filter(|batch| owner.is_none() || batch.owner.as_deref() == owner) {
        Some(_) => Err(JoinBatchError::Closed(id)),
        None => Err(JoinBatchError::Unknown(id)),
    }
}

/// Locks the batches of files that are about to become final, before anything else is changed. Does nothing on SQLite,
/// which has only one writer.
///
/// # Errors
/// Database errors.
pub(crate) async fn lock(
    transaction: &impl ConnectionTrait,
    batches: impl IntoIterator<Item = BatchId>,
) -> Result<(), DbErr> {
    let batches: BTreeSet<BatchId> = batches.into_iter().collect();
    if batches.is_empty() || transaction.get_database_backend() == DbBackend::Sqlite {
        return Ok(());
    }
    Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(Column::Id.is_in(batches))
        .order_by_asc(Column::Id)
        .lock(LockType::NoKeyUpdate)
        .into_tuple()
        .all(transaction)
        .await
        .map(|_: Vec<BatchId>| ())
}

/// Counts a file that has become final, and completes the batch if it is closed and this was its last file. The batch
/// must have been locked by `lock`.
///
/// # Errors
/// Database errors, and errors of the outbox.
pub async fn settle(
    transaction: &impl ConnectionTrait,
    id: BatchId,
    settled: FileOutcome,
    now: Timestamp,
) -> Result<Option<WrittenEvent>, outbox::WriteError> {
    settle_some(transaction, id, settled, 1, now).await
}

/// [`settle`] for several files of one batch.
///
/// # Errors
/// As [`settle`].
pub(crate) async fn settle_some(
    transaction: &impl ConnectionTrait,
    id: BatchId,
    settled: FileOutcome,
    files: i64,
    now: Timestamp,
) -> Result<Option<WrittenEvent>, outbox::WriteError> {
    let counter = match settled {
        FileOutcome::Stored => Column::StoredCount,
        FileOutcome::Failed => Column::FailedCount,
    };
    let changed = Entity::update_many()
        .col_expr(counter, Expr::col(counter).add(files))
        .col_expr(Column::UpdatedAt, Expr::value(now))
        .filter(Column::Id.eq(id))
        .exec_with_returning(transaction)
        .await?;
    match changed.into_iter().next() {
        Some(batch) => complete_if_done(transaction, batch, now).await,
        None => Ok(None),
    }
}

/// Counts a failed file as unfinished again. A batch that was complete is completed and announced again once the file
/// is final.
///
/// # Errors
/// Database errors.
pub async fn reopen(
    transaction: &impl ConnectionTrait,
    id: BatchId,
    now: Timestamp,
) -> Result<(), DbErr> {
    let reopened = Expr::case(
        Column::CompletedAt.is_not_null(),
        Expr::col(Column::ReopenedCount).add(1),
    )
    .finally(Expr::col(Column::ReopenedCount));
    Entity::update_many()
        .col_expr(Column::FailedCount, Expr::col(Column::FailedCount).sub(1))
        .col_expr(Column::ReopenedCount, reopened.into())
        .col_expr(Column::Status, Expr::value(BatchStatus::InProgress))
        .col_expr(Column::CompletedAt, Expr::value(Option::<Timestamp>::None))
        .col_expr(Column::UpdatedAt, Expr::value(now))
        .filter(Column::Id.eq(id))
        .exec(transaction)
        .await
        .map(drop)
}

/// Completes a batch that is closed and whose files are all final. Happens once, by compare-and-set.
///
/// # Errors
/// Database errors, and errors of the outbox.
pub async fn complete_if_done(
    transaction: &impl ConnectionTrait,
    batch: Model,
    now: Timestamp,
) -> Result<Option<WrittenEvent>, outbox::WriteError> {
    let done = batch.finalized_at.is_some()
        && batch.completed_at.is_none()
        && batch.stored_count + batch.failed_count == batch.total_files;
    if !done {
        return Ok(None);
    }
    let status = match (batch.stored_count, batch.failed_count) {
        (0, _) => BatchStatus::Failed,
        (_, 0) => BatchStatus::Complete,
        _ => BatchStatus::Partial,
    };
    let changed = Entity::update_many()
        .col_expr(Column::Status, Expr::value(status))
        .col_expr(Column::CompletedAt, Expr::value(now))
        .col_expr(Column::UpdatedAt, Expr::value(now))
        .filter(Column::Id.eq(batch.id))
        .filter(Column::CompletedAt.is_null())
        .exec(transaction)
        .await?;
    if changed.rows_affected == 0 {
        return Ok(None);
    }
    let event = NewEvent::batch_complete(BatchComplete::from_model(&batch, status), &batch);
    outbox::write(transaction, now, event).await.map(Some)
}
