//! Deleting a file: the row and its event first, the object afterwards by a job. A failed file stays failed and only
//! gives up the bytes kept for a retry.
//!
//! A crash in between leaves a row that is not purged, which the sweep pushes.

use super::OwnerScope;
use crate::{
    clock::Clock,
    db::Database,
    outbox::{self, FileDeleted, NewEvent, WrittenEvent},
    quota,
};
use entity::{
    FileId, Timestamp,
    file::{Column, Entity, FileStatus, Model},
};
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, sea_query::Expr};

/// Why a file cannot be deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    #[error("there is no such file")]
    NotFound,
    #[error("the file is {}, and only a stored or failed file can be deleted", status_word(.0))]
    NotStored(FileStatus),
    #[error("the file could not be deleted")]
    Database(#[from] DbErr),
    #[error("the deletion could not be announced")]
    Outbox(#[from] outbox::WriteError),
}

fn status_word(status: &FileStatus) -> String {
    use sea_orm::ActiveEnum;
    status.to_value()
}

/// Marks a stored file as deleted and writes `file.deleted`, or marks a failed file's bytes for removal, without an
/// event. The caller must push the purge and the deliveries. Deleting a file that is already deleted succeeds and
/// writes nothing.
///
/// # Errors
/// [`DeleteError::NotStored`] while the file is in progress.
pub async fn delete(
    db: &Database,
    clock: &Clock,
    scope: &OwnerScope,
    id: FileId,
) -> Result<Option<WrittenEvent>, DeleteError> {
    let now = clock.now();
    let scope = scope.clone();
    db.write(move |transaction| {
        Box::pin(async move {
            let file: Option<Model> = Entity::find_by_id(id).one(transaction).await?;
            let file = file
                .filter(|file| scope.covers(file.owner.as_deref()))
                .ok_or(DeleteError::NotFound)?;
            if file.status == FileStatus::Failed {
                return give_up_bytes(transaction, id, now).await;
            }
            let changed = Entity::update_many()
                .col_expr(Column::Status, Expr::value(FileStatus::Deleted))
                .col_expr(Column::DeletedAt, Expr::value(now))
                .col_expr(Column::UpdatedAt, Expr::value(now))
                .filter(Column::Id.eq(id))
                .filter(Column::Status.eq(FileStatus::Stored))
                .exec(transaction)
                .await?;
            match (changed.rows_affected, file.status) {
                (0, FileStatus::Deleted) => Ok(None),
                // Deleted by another request between the two statements.
                (0, FileStatus::Stored) => Ok(None),
                (0, other) => Err(DeleteError::NotStored(other)),
                _ => {
                    quota::release(transaction, &file).await?;
                    let event = NewEvent::file_deleted(FileDeleted::from_model(&file, now), &file);
                    Ok(Some(outbox::write(transaction, now, event).await?))
                }
            }
        })
    })
    .await
}

/// If a retry comes first, the file is staged again and is not deleted.
async fn give_up_bytes(
    transaction: &impl ConnectionTrait,
    id: FileId,
    now: Timestamp,
) -> Result<Option<WrittenEvent>, DeleteError> {
    Entity::update_many()
        .col_expr(
            Column::RetryableUntil,
            Expr::value(Option::<Timestamp>::None),
        )
        .col_expr(Column::UpdatedAt, Expr::value(now))
        .filter(Column::Id.eq(id))
        .filter(Column::Status.eq(FileStatus::Failed))
        .filter(Column::RetryableUntil.is_not_null())
        .exec(transaction)
        .await?;
    let found: Option<Model> = Entity::find_by_id(id).one(transaction).await?;
    match found.map(|file| file.status) {
        Some(FileStatus::Failed) | None => Ok(None),
        Some(other) => Err(DeleteError::NotStored(other)),
    }
}
