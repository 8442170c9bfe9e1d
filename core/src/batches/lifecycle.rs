//! Opening a batch, looking at it, closing it.

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

/// Batches without a file that one owner may have: a row costs nothing to ask for, and must not fill the database.
pub const MAX_EMPTY_BATCHES: u64 = 10_000;

/// How long a batch to which no file has come is kept.
pub const EMPTY_BATCH_RETENTION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Batches forgotten by one request.
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
        // Written out, not bound, as the partial index has it: `batches_empty`.
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
        // One that a file joins meanwhile stays.
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

/// Opens a batch without files. Those of its owner that have had none for [`EMPTY_BATCH_RETENTION`] are forgotten.
///
/// # Errors
/// [`CreateBatchError::TooMany`] for an owner with [`MAX_EMPTY_BATCHES`] of them, [`CreateBatchError::Key`] when another request has taken its `Idempotency-Key` over; then nothing is written.
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

/// One batch, if the scope covers it.
///
/// # Errors
/// The database's.
pub async fn get(
    db: &impl ConnectionTrait,
    scope: &OwnerScope,
    id: BatchId,
) -> Result<Option<Model>, DbErr> {
    let found = Entity::find_by_id(id).one(db).await?;
    Ok(found.filter(|batch| scope.covers(batch.owner.as_deref())))
}

/// Closes a batch to further files, and completes it at once if all its files are final; a batch without files ends
/// `failed`. Closing a closed batch changes nothing. The caller pushes the deliveries of what was written.
///
/// # Errors
/// [`FinalizeBatchError::NotFound`], and the database's.
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
