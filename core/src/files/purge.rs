//! Removing the bytes of a deleted file, or of a failed one that keeps them no longer.
//!
//! `staging_key` and `purged_at` change only once the bytes are really gone, so a crash at any line leaves a row the
//! sweep finds. The storage key stays in the row for ever: no other file gets it, so a request that the store carries
//! out late, or a second purge, never meets another file's object.

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

/// How long a store may still carry out what a worker asked of it before it was killed, at least: it knows nothing of
/// our leases, and a busy one was seen to make an object more than ten seconds after its file had failed.
const LATE_WRITE_WINDOW: Duration = Duration::from_secs(60);

/// Why bytes could not be removed; another run will try.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    #[error("staging could not be cleared")]
    Staging(#[from] StagingError),
    #[error("the object could not be deleted")]
    Storage(#[from] StorageError),
    #[error("the row names staging that cannot be")]
    Pieces(#[from] PiecesError),
    #[error("the row has a storage key that is none")]
    Key(#[from] InvalidStorageKey),
    #[error("the purge could not be recorded")]
    Database(#[from] DbErr),
}

/// What a purge found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgeOutcome {
    Removed,
    /// Nothing to remove, or the file is not final, or it keeps its bytes for a retry.
    Nothing,
}

/// Removes what a failed or deleted file still holds in staging and in storage.
///
/// # Errors
/// [`PurgeError`]; what was removed stays removed, and the row still names what was not.
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

/// Removes the object at a key that other files may want (`file_overwrite`): they wait until the store has answered.
/// A deletion that is not answered leaves the key held, and then retired. False while another purge is at it.
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

/// The file, if it has bytes that must go. From here on it cannot be retried: the retry and this are both
/// compare-and-sets of `retryable_until`.
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

/// A worker that was killed may have sent a request its store still carries out: the purge is repeated by each sweep
/// until that cannot happen any more.
fn may_come_late(app: &App, file: &Model) -> bool {
    let late = LATE_WRITE_WINDOW.max(2 * app.config.workers.lease);
    file.lease_lost_at > Some(app.clock.before(late))
}
