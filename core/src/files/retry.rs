//! Finalizing a file now instead of when it is due again.

use super::{Scope, get};
use crate::{clock::Clock, db::Database};
use entity::{
    FileId, Timestamp,
    file::{Column, Entity, FileStatus},
};
use sea_orm::{ActiveEnum, ColumnTrait, DbErr, EntityTrait, QueryFilter, sea_query::Expr};

/// Why a file is not finalized now.
#[derive(Debug, thiserror::Error)]
pub enum RetryError {
    #[error("there is no such file")]
    NotFound,
    #[error("the file is {}, and only a staged one waits to be finalized", .0.to_value())]
    NotWaiting(FileStatus),
    #[error("the file could not be made due")]
    Database(#[from] DbErr),
}

/// Makes a staged file due at once; the caller pushes its finalize job. A file whose worker's lease ran out is due
/// already, and only the push is missing.
///
/// # Errors
/// [`RetryError::NotWaiting`] when it is uploading, final, or in the hands of a worker.
pub async fn finalize_now(
    db: &Database,
    clock: &Clock,
    scope: &Scope,
    id: FileId,
) -> Result<(), RetryError> {
    let now = clock.now();
    let file = get(db.read(), scope, id).await?;
    let file = file.ok_or(RetryError::NotFound)?;
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
        0 => Err(RetryError::NotWaiting(file.status)),
        _ => Ok(()),
    }
}
