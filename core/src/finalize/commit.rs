//! How a finalize run ends: stored, failed, or put off. Each is one transaction, fenced by the lease.

use crate::{
    batches::{self, Settled},
    outbox::{self, FileStored, NewEvent, Written},
    storage::{StorageKey, transfer::Landed},
    usage,
};
use entity::{
    FileId, Timestamp,
    file::{Column, Entity, FileStatus, Model},
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, UpdateMany,
    sea_query::{Expr, ExprTrait},
};

#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The lease has passed to another worker; nothing was changed.
    #[error("the lease was lost")]
    LeaseLost,
    #[error("the outcome could not be recorded")]
    Database(#[from] DbErr),
    #[error("the outcome could not be announced")]
    Outbox(#[from] outbox::WriteError),
}

/// Why a file fails for good, as its owner will read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: &'static str,
    pub(super) message: String,
}

/// An object that is whole and verified, and not yet committed.
#[derive(Clone, Debug)]
pub(super) struct Ashore {
    pub(super) landed: Landed,
    /// When it was.
    pub(super) at: Timestamp,
    /// The type the file has, by what was said of it and by its bytes.
    pub(super) content_type: String,
    /// Where the object can be fetched, for its event.
    pub(super) url: String,
}

/// The file is stored, its event is written, its batch counts it; all of it or nothing.
pub(super) async fn store(
    transaction: &impl ConnectionTrait,
    file: &Model,
    worker: &str,
    ashore: Ashore,
    now: Timestamp,
) -> Result<Vec<Written>, CommitError> {
    let update = mine(file.id, worker)
        .col_expr(Column::Status, Expr::value(FileStatus::Stored))
        .col_expr(Column::ContentType, Expr::value(&ashore.content_type))
        .col_expr(
            Column::Sha256,
            Expr::value(ashore.landed.sha256.to_string()),
        )
        .col_expr(Column::StagingKey, Expr::value(Option::<String>::None))
        .col_expr(Column::LandedAt, Expr::value(ashore.at))
        .col_expr(Column::StoredAt, Expr::value(now));
    change(transaction, release(update, now)).await?;
    let event = NewEvent::file_stored(FileStored::of(file, ashore.landed.sha256, ashore.url), file);
    let mut written = vec![outbox::write(transaction, now, event).await?];
    if let Some(batch) = file.batch_id {
        written.extend(batches::settle(transaction, batch, Settled::Stored, now).await?);
    }
    Ok(written)
}

/// The file is failed, and nothing announces it but its batch's end.
pub(super) async fn fail(
    transaction: &impl ConnectionTrait,
    file: &Model,
    worker: &str,
    failure: &Failure,
    now: Timestamp,
) -> Result<Vec<Written>, CommitError> {
    let update = mine(file.id, worker)
        .col_expr(Column::Status, Expr::value(FileStatus::Failed))
        .col_expr(Column::ErrorCode, Expr::value(failure.code))
        .col_expr(Column::ErrorMessage, Expr::value(&failure.message));
    change(transaction, release(update, now)).await?;
    usage::change(
        transaction,
        file.owner.as_deref(),
        file.id.0,
        -file.size_bytes,
    )
    .await?;
    match file.batch_id {
        Some(batch) => Ok(batches::settle(transaction, batch, Settled::Failed, now)
            .await?
            .into_iter()
            .collect()),
        None => Ok(Vec::new()),
    }
}

/// The file is staged again and due at `at`, under another key if one is given; its bytes stay where they are.
pub(super) async fn put_off(
    transaction: &impl ConnectionTrait,
    file: &Model,
    worker: &str,
    key: Option<StorageKey>,
    at: Timestamp,
    now: Timestamp,
) -> Result<(), CommitError> {
    let mut update = mine(file.id, worker)
        .col_expr(Column::Status, Expr::value(FileStatus::Staged))
        .col_expr(
            Column::FinalizeAttempts,
            Expr::col(Column::FinalizeAttempts).add(1),
        )
        .col_expr(Column::NextAttemptAt, Expr::value(at));
    if let Some(key) = key {
        update = update.col_expr(Column::StorageKey, Expr::value(key.as_str()));
    }
    change(transaction, release(update, now)).await
}

fn mine(id: FileId, worker: &str) -> UpdateMany<Entity> {
    Entity::update_many()
        .filter(Column::Id.eq(id))
        .filter(Column::Status.eq(FileStatus::Finalizing))
        .filter(Column::LeaseOwner.eq(worker))
}

fn release(update: UpdateMany<Entity>, now: Timestamp) -> UpdateMany<Entity> {
    update
        .col_expr(Column::LeaseOwner, Expr::value(Option::<String>::None))
        .col_expr(
            Column::LeaseExpiresAt,
            Expr::value(Option::<Timestamp>::None),
        )
        .col_expr(Column::UpdatedAt, Expr::value(now))
}

async fn change(
    transaction: &impl ConnectionTrait,
    update: UpdateMany<Entity>,
) -> Result<(), CommitError> {
    match update.exec(transaction).await?.rows_affected {
        0 => Err(CommitError::LeaseLost),
        _ => Ok(()),
    }
}
