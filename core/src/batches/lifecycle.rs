//! Opening a batch, looking at it, closing it.

use super::complete_if_done;
use crate::{
    clock::Clock,
    db::Database,
    files::Scope,
    idempotency::{Keep, KeepError},
    outbox::{self, Written},
};
use entity::{
    BatchId,
    batch::{BatchStatus, Column, Entity, Model},
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, IntoActiveModel, QueryFilter, sea_query::Expr,
};

/// Why a batch cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error(transparent)]
    Key(#[from] KeepError),
    #[error("the batch could not be recorded")]
    Database(#[from] DbErr),
}

/// Why a batch cannot be closed.
#[derive(Debug, thiserror::Error)]
pub enum FinalizeError {
    #[error("there is no such batch")]
    NotFound,
    #[error("the end of the batch could not be announced")]
    Outbox(#[from] outbox::WriteError),
    #[error("the batch could not be closed")]
    Database(#[from] DbErr),
}

/// Opens a batch without files.
///
/// # Errors
/// [`CreateError::Key`] when another request has taken its `Idempotency-Key` over; then nothing is written.
pub async fn create(
    db: &Database,
    clock: &Clock,
    owner: Option<String>,
    metadata: serde_json::Value,
    keep: Option<Keep<Model>>,
) -> Result<Model, CreateError> {
    let now = clock.now();
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
    };
    db.write(move |transaction| {
        Box::pin(async move {
            Entity::insert(row.clone().into_active_model())
                .exec_without_returning(transaction)
                .await?;
            Keep::write(keep, transaction, &row).await?;
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
    scope: &Scope,
    id: BatchId,
) -> Result<Option<Model>, DbErr> {
    let found = Entity::find_by_id(id).one(db).await?;
    Ok(found.filter(|batch| scope.covers(batch.owner.as_deref())))
}

/// Closes a batch to further files, and completes it at once if all its files are final; a batch without files ends
/// `failed`. Closing a closed batch changes nothing. The caller pushes the deliveries of what was written.
///
/// # Errors
/// [`FinalizeError::NotFound`], and the database's.
pub async fn finalize(
    db: &Database,
    clock: &Clock,
    scope: &Scope,
    id: BatchId,
) -> Result<(Model, Option<Written>), FinalizeError> {
    let (now, scope) = (clock.now(), scope.clone());
    db.write(move |transaction| {
        Box::pin(async move {
            let known = get(transaction, &scope, id).await?;
            let known = known.ok_or(FinalizeError::NotFound)?;
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
