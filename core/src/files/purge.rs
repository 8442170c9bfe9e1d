//! Removing the bytes of a file that failed or was deleted.
//!
//! The keys stay in the row until the bytes are really gone, so a crash at any line leaves a row the sweep finds.

use crate::{
    context::Landfall,
    files::{PiecesError, staged_pieces},
    staging::StagingError,
    storage::{NotAKey, StorageError, StorageKey},
};
use entity::{
    FileId,
    file::{Column, Entity, FileStatus, Model},
};
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter, sea_query::Expr};
use std::time::Duration;

/// How long a store may still carry out what a worker asked of it before it was killed, at least: it knows nothing of
/// our leases, and a busy one was seen to make an object more than ten seconds after its file had failed.
const LATE: Duration = Duration::from_secs(60);

/// Why bytes could not be removed; another run will try.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    #[error("staging could not be cleared")]
    Staging(#[from] StagingError),
    #[error("the object could not be deleted")]
    Storage(#[from] StorageError),
    #[error("the row does not say what it has in staging")]
    Pieces(#[from] PiecesError),
    #[error("the row has a storage key that is none")]
    Key(#[from] NotAKey),
    #[error("the purge could not be recorded")]
    Database(#[from] DbErr),
}

/// What a purge found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purged {
    Removed,
    /// Nothing to remove, or the file is not final.
    Nothing,
}

/// Removes what a failed or deleted file still holds in staging and in storage.
///
/// # Errors
/// [`PurgeError`]; what was removed stays removed, and the row still names what was not.
pub async fn purge(landfall: &Landfall, id: FileId) -> Result<Purged, PurgeError> {
    let Some(file) = Entity::find_by_id(id).one(landfall.db.read()).await? else {
        return Ok(Purged::Nothing);
    };
    let staged = staged_pieces(landfall.db.read(), &file).await?;
    // A worker that was killed may have sent a request its store still carries out: the row goes on naming the key,
    // and the sweep has the object removed again, until that cannot happen any more.
    let late = LATE.max(2 * landfall.config.workers.lease);
    let may_come_late = file.finalize_crashes > 0 && file.updated_at > landfall.clock.before(late);
    let Model {
        status,
        staging_key,
        storage_key,
        ..
    } = file;
    if !matches!(status, FileStatus::Failed | FileStatus::Deleted)
        || (staging_key.is_none() && storage_key.is_none())
    {
        return Ok(Purged::Nothing);
    }
    let keys: Vec<_> = staged.iter().map(|piece| piece.key).collect();
    landfall.staging.delete(&keys).await?;
    if let Some(key) = &storage_key {
        landfall.storage.delete(&key.parse::<StorageKey>()?).await?;
    }
    if may_come_late {
        return Ok(Purged::Removed);
    }
    landfall
        .db
        .write(move |transaction| {
            Box::pin(async move {
                Entity::update_many()
                    .col_expr(Column::StagingKey, Expr::value(Option::<String>::None))
                    .col_expr(Column::StorageKey, Expr::value(Option::<String>::None))
                    .filter(Column::Id.eq(id))
                    .filter(Column::Status.is_in([FileStatus::Failed, FileStatus::Deleted]))
                    .exec(transaction)
                    .await
            })
        })
        .await?;
    Ok(Purged::Removed)
}
