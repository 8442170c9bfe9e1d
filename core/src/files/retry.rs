//! Staging a failed file again, and finalizing a staged file immediately instead of at its next attempt.

use super::{OwnerScope, PiecesError, get, staged_pieces};
use crate::{
    app::App,
    batches,
    clock::Clock,
    db::Database,
    idempotency::{PendingResponse, RecordResponseError},
    quota::{self, QuotaAddition, QuotaError},
    staging::StagingError,
};
use entity::{
    FileId, Timestamp,
    file::{Column, Entity, FileStatus, Model},
};
use sea_orm::{
    ActiveEnum, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, sea_query::Expr,
};

/// The error code of a file whose bytes were missing from staging.
const STAGING_GONE: &str = "staging_gone";

/// Why a file cannot be staged again.
#[derive(Debug, thiserror::Error)]
pub enum RetryError {
    #[error("there is no such file")]
    NotFound,
    #[error("the file is {}, and only a failed file can be retried", .0.to_value())]
    NotFailed(FileStatus),
    /// The bytes were purged, or were missing when the file failed and are still missing.
    #[error("the file's bytes are no longer in staging")]
    BytesGone,
    #[error(transparent)]
    Quota(#[from] QuotaError),
    #[error(transparent)]
    Key(#[from] RecordResponseError),
    #[error("staging could not be checked")]
    Staging(#[from] StagingError),
    #[error("the file could not be staged again")]
    Database(#[from] DbErr),
}

fn is_quarantined(file: &Model) -> bool {
    file.error_code.as_deref() == Some("poison")
}

/// Returns until when a file can be retried; `None` when it has not failed, or its bytes are gone.
#[must_use]
pub fn retryable_until(file: &Model) -> Option<Timestamp> {
    let has_bytes = file.status == FileStatus::Failed
        && file.staging_key.is_some()
        && file.error_code.as_deref() != Some(STAGING_GONE);
    file.retryable_until.filter(|_| has_bytes)
}

/// Stages a failed file again: clears its error, resets its counters, counts it against the owner's quota again and as
/// unfinished in its batch. The caller must push its finalize job.
///
/// # Errors
/// [`RetryError::NotFailed`], [`RetryError::BytesGone`], and [`RetryError::Quota`] when the owner's quota is exhausted;
/// nothing is changed then.
pub async fn retry(
    app: &App,
    scope: &OwnerScope,
    id: FileId,
    response: Option<PendingResponse<Model>>,
) -> Result<Model, RetryError> {
    let file = get(app.db.read(), scope, id).await?;
    let file = file.ok_or(RetryError::NotFound)?;
    require_bytes(app, &file).await?;
    let (now, quota) = (app.clock.now(), app.config.uploads.owner_quota);
    app.db
        .write(move |transaction| {
            Box::pin(async move {
                if let Some(batch) = file.batch_id {
                    batches::reopen(transaction, batch, now).await?;
                }
                let addition = QuotaAddition {
                    owner: file.owner.as_deref(),
                    id: id.0,
                    bytes: quota::file_usage(&file),
                    quota,
                    reserved: None,
                    now,
                };
                quota::add(transaction, addition).await?;
                let staged = stage_again(transaction, &file, now).await?;
                PendingResponse::write(response, transaction, &staged).await?;
                Ok(staged)
            })
        })
        .await
}

/// Rejects files that cannot be retried before anything is written. The compare-and-set detects a purge or another
/// retry that came first.
async fn require_bytes(app: &App, file: &Model) -> Result<(), RetryError> {
    if file.status != FileStatus::Failed {
        return Err(RetryError::NotFailed(file.status));
    }
    let kept = file.retryable_until > Some(app.clock.now()) && file.staging_key.is_some();
    if !kept {
        return Err(RetryError::BytesGone);
    }
    if file.error_code.as_deref() != Some(STAGING_GONE) {
        return Ok(());
    }
    // A missing volume may have been mounted since.
    let pieces = staged_pieces(app.db.read(), file).await;
    let pieces = pieces.map_err(|error| match error {
        PiecesError::NotPieces(_) => RetryError::BytesGone,
        PiecesError::Database(error) => error.into(),
    })?;
    for piece in pieces {
        let found = app.staging.len(piece.key).await?;
        if found.is_none_or(|length| length < piece.size) {
            return Err(RetryError::BytesGone);
        }
    }
    Ok(())
}

async fn stage_again(
    transaction: &impl ConnectionTrait,
    file: &Model,
    now: Timestamp,
) -> Result<Model, RetryError> {
    let rows = Entity::update_many()
        .col_expr(Column::Status, Expr::value(FileStatus::Staged))
        .col_expr(Column::ErrorCode, Expr::value(Option::<String>::None))
        .col_expr(Column::ErrorMessage, Expr::value(Option::<String>::None))
        .col_expr(
            Column::RetryableUntil,
            Expr::value(Option::<Timestamp>::None),
        )
        .col_expr(Column::FinalizeAttempts, Expr::value(0))
        .col_expr(Column::FinalizeCrashes, Expr::value(0))
        .col_expr(Column::AloneDeaths, Expr::value(0))
        // A quarantined file runs alone.
        .col_expr(
            Column::SuspectSince,
            Expr::value(is_quarantined(file).then_some(now)),
        )
        .col_expr(Column::FirstFaultAt, Expr::value(Option::<Timestamp>::None))
        .col_expr(Column::NextAttemptAt, Expr::value(now))
        .col_expr(Column::UpdatedAt, Expr::value(now))
        .filter(Column::Id.eq(file.id))
        .filter(Column::Status.eq(FileStatus::Failed))
        .filter(Column::StagingKey.is_not_null())
        .filter(Column::RetryableUntil.gt(now))
        .exec_with_returning(transaction)
        .await?;
    match rows.into_iter().next() {
        Some(staged) => Ok(staged),
        None => {
            let found = Entity::find_by_id(file.id).one(transaction).await?;
            Err(match found {
                Some(other) if other.status != FileStatus::Failed => {
                    RetryError::NotFailed(other.status)
                }
                _ => RetryError::BytesGone,
            })
        }
    }
}

/// Why a file cannot be finalized now.
#[derive(Debug, thiserror::Error)]
pub enum FinalizeNowError {
    #[error("there is no such file")]
    NotFound,
    #[error("the file is {}, and only a staged file can be finalized", .0.to_value())]
    NotWaiting(FileStatus),
    #[error("the file could not be made due")]
    Database(#[from] DbErr),
}

/// Makes a staged file due immediately; the caller must push its finalize job. A file whose lease has expired is due
/// already and only needs the push.
///
/// # Errors
/// [`FinalizeNowError::NotWaiting`] when the file is uploading, final, or claimed by a worker.
pub async fn finalize_now(
    db: &Database,
    clock: &Clock,
    scope: &OwnerScope,
    id: FileId,
) -> Result<(), FinalizeNowError> {
    let now = clock.now();
    let file = get(db.read(), scope, id).await?;
    let file = file.ok_or(FinalizeNowError::NotFound)?;
    let left_behind =
        file.status == FileStatus::Finalizing && file.lease_expires_at.is_none_or(|end| end < now);
    if left_behind {
        return Ok(());
    }
    let due = Entity::update_many()
        .col_expr(
            Column::NextAttemptAt,
            Expr::value(Option::<Timestamp>::None),
        )
        .col_expr(Column::UpdatedAt, Expr::value(now))
        .filter(Column::Id.eq(id))
        .filter(Column::Status.eq(FileStatus::Staged));
    let changed = db
        .write(move |transaction| Box::pin(async move { due.exec(transaction).await }))
        .await?;
    match changed.rows_affected {
        0 => Err(FinalizeNowError::NotWaiting(file.status)),
        _ => Ok(()),
    }
}
