//! Orphans, objects that no row refers to: they are set aside and removed after seven days.
//!
//! In a folder, orphans are moved below `orphaned/`; in a bucket they stay in place and are recorded. As everywhere,
//! the key is reserved first: a row of a failed file takes the key so that no claim can reserve it, then the object is
//! moved or deleted, then the row is deleted. A crash in between leaves a failed file with the key, which the sweep
//! purges.

use crate::{
    app::App,
    storage::{ListedObject, PROBES, StorageError, StorageKey},
    sweep::candidates,
};
use entity::{
    FileId,
    cleanup_candidate::Place,
    file::{Column, Entity, FileStatus, Model},
};
use sea_orm::{
    ColumnTrait, DbErr, EntityTrait, IntoActiveModel, PaginatorTrait, QueryFilter, SqlErr,
};
use std::time::Duration;

/// How long objects that were set aside are kept.
pub(crate) const RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

#[derive(Debug, thiserror::Error)]
pub(crate) enum OrphanError {
    #[error("the rows could not be read or written")]
    Database(#[from] DbErr),
    #[error("the object could not be moved or deleted")]
    Storage(#[from] StorageError),
}

/// Whether Landfall wrote the object. A folder belongs to the installation, so everything in it counts; a bucket may be
/// shared, so only objects whose metadata names Landfall count.
pub(super) async fn is_ours(app: &App, object: &ListedObject) -> Result<bool, StorageError> {
    // Consoles and mounted buckets represent folders by empty objects.
    if object.size == 0 && object.key.ends_with('/') {
        return Ok(false);
    }
    if !app.storage.is_shared() || object.key.starts_with(PROBES) {
        return Ok(true);
    }
    match object.key.parse::<StorageKey>() {
        Ok(key) => Ok(app.storage.origin(&key).await?.is_some()),
        Err(_) => Ok(false),
    }
}

/// Whether the object was set aside in a bucket and is waiting there to be removed.
///
/// # Errors
/// Database errors.
pub(super) async fn set_aside_already(app: &App, key: &str) -> Result<bool, DbErr> {
    let known = candidates::known(&app.db, Place::Orphaned, &[key.to_owned()]).await?;
    Ok(!known.is_empty())
}

/// Sets the object aside. Returns false when a file owns the key.
pub(super) async fn set_aside(app: &App, key: &StorageKey) -> Result<bool, OrphanError> {
    let Some(holder) = reserve_key(app, key).await? else {
        return Ok(false);
    };
    // Recorded first, because an object that is moved but not recorded would stay forever.
    let names = vec![app.storage.orphaned_key(key).as_str().to_owned()];
    candidates::record_seen(&app.db, &app.clock, Place::Orphaned, names, RETENTION).await?;
    app.storage.set_aside(key).await?;
    release(app, holder).await?;
    Ok(true)
}

/// Deletes an object by its current name. Returns false when a file has acquired the key since.
pub(crate) async fn remove(app: &App, name: &str) -> Result<bool, OrphanError> {
    let Ok(key) = name.parse::<StorageKey>() else {
        return Ok(false);
    };
    let named = Entity::find().filter(Column::StorageKey.eq(name));
    if named.count(app.db.read()).await? > 0 {
        return Ok(false);
    }
    let Some(holder) = reserve_key(app, &key).await? else {
        return Ok(false);
    };
    app.storage.delete(&key).await?;
    release(app, holder).await?;
    Ok(true)
}

/// Reserves the key with a row of its own. Returns `None` when a file owns it.
async fn reserve_key(app: &App, key: &StorageKey) -> Result<Option<FileId>, DbErr> {
    let row = holder(app, key);
    let id = row.id;
    let held = app.db.write(move |transaction| {
        Box::pin(async move {
            Entity::insert(row.into_active_model())
                .exec_without_returning(transaction)
                .await
                .map(drop)
        })
    });
    match held.await {
        Ok(()) => Ok(Some(id)),
        Err(error) if is_key_taken(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn release(app: &App, id: FileId) -> Result<(), DbErr> {
    app.db
        .write(move |transaction| {
            Box::pin(async move { Entity::delete_by_id(id).exec(transaction).await.map(drop) })
        })
        .await
}

fn is_key_taken(error: &DbErr) -> bool {
    matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_)))
}

/// The status is `failed` because a failed file keeps its key even from a file that may overwrite.
fn holder(app: &App, key: &StorageKey) -> Model {
    let now = app.clock.now();
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
