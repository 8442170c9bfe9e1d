//! Creating, reading and finalizing batches.

use super::complete_if_done;
use crate::{
    clock::Clock,
    db::Database,
    files::OwnerScope,
    idempotency::{PendingResponse, RecordResponseError},
    outbox::{self, WrittenEvent},
};
use entity::{
    BatchId, Timestamp,
    batch::{BatchStatus, Column, Entity, Model},
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder,
    QuerySelect, QueryTrait, Select, sea_query::Expr,
};
use std::time::Duration;

/// Maximum number of batches without files per owner. Creating a batch costs the client nothing, and must not fill the
/// database.
pub const MAX_EMPTY_BATCHES: u64 = 10_000;

/// How long a batch without files is kept.
pub const EMPTY_BATCH_RETENTION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Maximum number of expired empty batches that one request deletes.
const DELETE_BATCH_SIZE: u64 = 100;

/// Why a batch cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum CreateBatchError {
    #[error(transparent)]
    Key(#[from] RecordResponseError),
    #[error("an owner may have {MAX_EMPTY_BATCHES} batches without a file")]
    TooMany,
    #[error("the batch could not be recorded")]
    Database(#[from] DbErr),
}

/// Why a batch cannot be closed.
#[derive(Debug, thiserror::Error)]
pub enum FinalizeBatchError {
    #[error("there is no such batch")]
    NotFound,
    #[error("the end of the batch could not be announced")]
    Outbox(#[from] outbox::WriteError),
    #[error("the batch could not be closed")]
    Database(#[from] DbErr),
}

fn empty_batches(owner: &str) -> Select<Entity> {
    Entity::find()
        .filter(Column::Owner.eq(owner))
        // A literal, not a bound value, so that the partial index `batches_empty` is used.
        .filter(Expr::cust("total_files = 0"))
}

async fn forget_empty(
    transaction: &impl ConnectionTrait,
    owner: &str,
    before: Timestamp,
) -> Result<(), DbErr> {
    let old = empty_batches(owner)
        .select_only()
        .column(Column::Id)
        .filter(Column::CreatedAt.lt(before))
        .limit(DELETE_BATCH_SIZE)
        .into_query();
    Entity::delete_many()
        .filter(Column::Id.in_subquery(old))
        // A batch that a file has joined in the meantime is kept.
        .filter(Column::TotalFiles.eq(0))
        .exec(transaction)
        .await
        .map(drop)
}

async fn require_few_empty(
    transaction: &impl ConnectionTrait,
    owner: &str,
) -> Result<(), CreateBatchError> {
    let one_too_many: Option<BatchId> = empty_batches(owner)
        .select_only()
        .column(Column::Id)
        .order_by_asc(Column::CreatedAt)
        .offset(MAX_EMPTY_BATCHES - 1)
        .limit(1)
        .into_tuple()
        .one(transaction)
        .await?;
    match one_too_many {
        Some(_) => Err(CreateBatchError::TooMany),
        None => Ok(()),
    }
}

/// Creates a batch without files. Batches of the same owner that have had no files for [`EMPTY_BATCH_RETENTION`] are
/// deleted.
///
/// # Errors
/// [`CreateBatchError::TooMany`] when the owner has [`MAX_EMPTY_BATCHES`] empty batches; [`CreateBatchError::Key`] when
/// another request has taken over the `Idempotency-Key`. Nothing is written then.
pub async fn create(
    db: &Database,
    clock: &Clock,
    owner: Option<String>,
    metadata: serde_json::Value,
    response: Option<PendingResponse<Model>>,
) -> Result<Model, CreateBatchError> {
    let (now, forgotten_before) = (clock.now(), clock.before(EMPTY_BATCH_RETENTION));
    let row = Model {
        id: BatchId::generate(),
        owner,
        status: BatchStatus::Init,
        metadata,
        total_files: 0,
        stored_count: 0,
        failed_count: 0,
        created_at: now,
        updated_at: now,
        finalized_at: None,
        completed_at: None,
        reopened_count: 0,
    };
    db.write(move |transaction| {
        Box::pin(async move {
            if let Some(owner) = &row.owner {
                forget_empty(transaction, owner, forgotten_before).await?;
                require_few_empty(transaction, owner).await?;
            }
            Entity::insert(row.clone().into_active_model())
                .exec_without_returning(transaction)
                .await?;
            PendingResponse::write(response, transaction, &row).await?;
            Ok(row)
        })
    })
    .await
}

/// Returns a batch, if the scope covers it.
///
/// # Errors
/// Database errors.
pub async fn get(
    db: &impl ConnectionTrait,
    scope: &OwnerScope,
    id: BatchId,
) -> Result<Option<Model>, DbErr> {
    let found = Entity::find_by_id(id).one(db).await?;
    Ok(found.filter(|batch| scope.covers(batch.owner.as_deref())))
}

/// Closes a batch to further files, and completes it at once if all its files are final; a batch without files ends as
/// `failed`. Finalizing a batch again changes nothing. The caller must push the deliveries of the returned event.
///
/// # Errors
/// [`FinalizeBatchError::NotFound`], and database errors.
pub async fn finalize(
    db: &Database,
    clock: &Clock,
    scope: &OwnerScope,
    id: BatchId,
) -> Result<(Model, Option<WrittenEvent>), FinalizeBatchError> {
    let (now, scope) = (clock.now(), scope.clone());
    db.write(move |transaction| {
        Box::pin(async move {
            let known = get(transaction, &scope, id).await?;
            let known = known.ok_or(FinalizeBatchError::NotFound)?;
            let closed = Entity::update_many()
                .col_expr(Column::FinalizedAt, Expr::value(now))
                .col_expr(Column::Status, Expr::value(BatchStatus::InProgress))
                .col_expr(Column::UpdatedAt, Expr::value(now))
                .filter(Column::Id.eq(id))
                .filter(Column::FinalizedAt.is_null())
                .exec_with_returning(transaction)
                .await?;
            let Some(batch) = closed.into_iter().next() else {
                let current = get(transaction, &scope, id).await?;
                return Ok((current.unwrap_or(known), None));
            };
            let written = complete_if_done(transaction, batch.clone(), now).await?;
            let current = get(transaction, &scope, id).await?;
            Ok((current.unwrap_or(batch), written))
        })
    })
    .await
}
