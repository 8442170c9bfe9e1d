//! Purging: removing the bytes of a deleted file, or of a failed file whose retention is over.
//!
//! `staging_key` and `purged_at` change only after the bytes are gone, so a crash at any point leaves a row that the
//! sweep finds. The row keeps its storage key forever: no other file gets it, so a request that the store carries out
//! late, or a second purge, never affects another file's object.

use crate::{
    app::App,
    failpoint,
    files::{PiecesError, staged_pieces},
    finalize::key_owners::{self, PurgeHold},
    staging::StagingError,
    storage::{InvalidStorageKey, StorageError, StorageKey},
};
use entity::{
    FileId, Timestamp,
    file::{Column, Entity, FileStatus, Model},
};
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter, sea_query::Expr};
use std::time::Duration;

/// For at least how long a store may still carry out a request of a worker that was killed. The store knows nothing of
/// our leases, and a busy one has been observed to create an object more than ten seconds after its file had failed.
const LATE_WRITE_WINDOW: Duration = Duration::from_secs(60);

/// Files that are due to be purged. A literal, not bound values, so that the partial index `files_unpurged` is used.
pub(crate) const UNPURGED: &str = "status IN ('failed', 'deleted') AND purged_at IS NULL AND retryable_until IS NULL \
     AND (staging_key IS NOT NULL OR storage_key IS NOT NULL)";

/// Why bytes could not be removed. The purge will be retried.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    #[error("staging could not be cleared")]
    Staging(#[from] StagingError),
    #[error("the object could not be deleted")]
    Storage(#[from] StorageError),
    #[error("the row has an invalid staging key")]
    Pieces(#[from] PiecesError),
    #[error("the row has an invalid storage key")]
    Key(#[from] InvalidStorageKey),
    #[error("the purge could not be recorded")]
    Database(#[from] DbErr),
}

/// The outcome of a purge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgeOutcome {
    Removed,
    /// There is nothing to remove, the file is not final, or it keeps its bytes for a retry.
    Nothing,
}

/// Removes the remaining bytes of a failed or deleted file from staging and storage.
///
/// # Errors
/// [`PurgeError`]; bytes removed before the error stay removed, and the row still lists the rest.
pub async fn purge(app: &App, id: FileId) -> Result<PurgeOutcome, PurgeError> {
    let Some(file) = begin(app, id).await? else {
        return Ok(PurgeOutcome::Nothing);
    };
    failpoint!("purge.begun");
    let staged = staged_pieces(app.db.read(), &file).await?;
    let keys: Vec<_> = staged.iter().map(|piece| piece.key).collect();
    app.staging.delete(&keys).await?;
    failpoint!("purge.staging_removed");
    if let Some(key) = &file.storage_key {
        let key = key.parse::<StorageKey>()?;
        if app.config.overwrites() {
            if !remove_shared(app, id, &key).await? {
                return Ok(PurgeOutcome::Nothing);
            }
        } else {
            app.storage.delete(&key).await?;
        }
    }
    failpoint!("purge.object_removed");
    if may_come_late(app, &file) {
        return Ok(PurgeOutcome::Removed);
    }
    let now = app.clock.now();
    let purged = unpurged(id)
        .col_expr(Column::StagingKey, Expr::value(Option::<String>::None))
        .col_expr(Column::PurgedAt, Expr::value(now));
    app.db
        .write(move |transaction| Box::pin(async move { purged.exec(transaction).await }))
        .await?;
    Ok(PurgeOutcome::Removed)
}

/// Removes the object at a key that other files may use (`file_overwrite`); they wait until the store has responded. If
/// the deletion gets no response, the key stays held and is retired afterwards. Returns false while another purge holds
/// the key.
async fn remove_shared(app: &App, id: FileId, key: &StorageKey) -> Result<bool, PurgeError> {
    let (now, held_key) = (app.clock.now(), key.clone());
    let hold = app
        .db
        .write(move |transaction| {
            Box::pin(async move {
                key_owners::hold_for_purge(transaction, held_key.as_str(), id, now).await
            })
        })
        .await?;
    let held = match hold {
        PurgeHold::Held(until) => until,
        PurgeHold::Busy => return Ok(false),
        PurgeHold::NotOwner => return Ok(true),
    };
    failpoint!("purge.key_held");
    let deleted = app.storage.delete_once(key).await;
    let answered = deleted.as_ref().err().is_none_or(StorageError::is_answered);
    let (now, held_key) = (app.clock.now(), key.clone());
    app.db
        .write(move |transaction| {
            Box::pin(async move {
                let key = held_key.as_str();
                key_owners::end_purge(transaction, key, id, held, answered, now).await
            })
        })
        .await?;
    deleted?;
    Ok(true)
}

/// Returns the file if it has bytes to remove. From here on it cannot be retried: both the retry and the purge are a
/// compare-and-set of `retryable_until`.
async fn begin(app: &App, id: FileId) -> Result<Option<Model>, DbErr> {
    let found = Entity::find_by_id(id).one(app.db.read()).await?;
    let Some(file) = found.filter(has_bytes_to_remove) else {
        return Ok(None);
    };
    let now = app.clock.now();
    match file.retryable_until {
        None => Ok(Some(file)),
        Some(until) if until > now => Ok(None),
        Some(_) => {
            let given_up = unpurged(id)
                .col_expr(
                    Column::RetryableUntil,
                    Expr::value(Option::<Timestamp>::None),
                )
                .col_expr(Column::UpdatedAt, Expr::value(now))
                .filter(Column::RetryableUntil.lte(now));
            let changed = app
                .db
                .write(move |transaction| Box::pin(async move { given_up.exec(transaction).await }))
                .await?;
            Ok((changed.rows_affected == 1).then_some(file))
        }
    }
}

fn has_bytes_to_remove(file: &Model) -> bool {
    matches!(file.status, FileStatus::Failed | FileStatus::Deleted)
        && file.purged_at.is_none()
        && (file.staging_key.is_some() || file.storage_key.is_some())
}

fn unpurged(id: FileId) -> sea_orm::UpdateMany<Entity> {
    Entity::update_many()
        .filter(Column::Id.eq(id))
        .filter(Column::Status.is_in([FileStatus::Failed, FileStatus::Deleted]))
        .filter(Column::PurgedAt.is_null())
}

/// Whether a killed worker's request may still be carried out by the store. Until that is ruled out, each sweep repeats
/// the purge.
fn may_come_late(app: &App, file: &Model) -> bool {
    let late = LATE_WRITE_WINDOW.max(2 * app.config.workers.lease);
    file.lease_lost_at > Some(app.clock.before(late))
}
