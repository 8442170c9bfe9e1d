//! Removing an object that no row names, without taking it from a file that reserves its key at this moment.
//!
//! The key comes first here too: a failed file's row takes it, so that no claim can, then the object goes, then the
//! row. A crash in between leaves a failed file that names the object, which the sweep has purged.

use crate::{
    context::Landfall,
    storage::{StorageError, StorageKey},
};
use entity::{
    FileId,
    file::{Entity, FileStatus, Model},
};
use sea_orm::{DbErr, EntityTrait, IntoActiveModel, SqlErr};

#[derive(Debug, thiserror::Error)]
pub(super) enum OrphanError {
    #[error("the key could not be reserved")]
    Database(#[from] DbErr),
    #[error("the object could not be deleted")]
    Storage(#[from] StorageError),
}

/// Removes the object at the key; false when a file has the key.
pub(super) async fn remove(landfall: &Landfall, key: &StorageKey) -> Result<bool, OrphanError> {
    let row = holder(landfall, key);
    let id = row.id;
    let held = landfall.db.write(move |transaction| {
        Box::pin(async move {
            Entity::insert(row.into_active_model())
                .exec_without_returning(transaction)
                .await
                .map(drop)
        })
    });
    match held.await {
        Ok(()) => {}
        Err(error) if is_taken(&error) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    landfall.storage.delete(key).await?;
    landfall
        .db
        .write(move |transaction| {
            Box::pin(async move { Entity::delete_by_id(id).exec(transaction).await.map(drop) })
        })
        .await?;
    Ok(true)
}

fn is_taken(error: &DbErr) -> bool {
    matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_)))
}

/// Failed, because such a file keeps its key even from one that may overwrite.
fn holder(landfall: &Landfall, key: &StorageKey) -> Model {
    let now = landfall.clock.now();
    Model {
        original_filename: "orphan".to_owned(),
        search_name: "orphan".to_owned(),
        content_type: "application/octet-stream".to_owned(),
        size_bytes: 0,
        storage_key: Some(key.as_str().to_owned()),
        error_code: Some("orphan".to_owned()),
        error_message: Some("an object that no file owned is being removed".to_owned()),
        ..Model::begun(FileId::generate(), FileStatus::Failed, now)
    }
}
