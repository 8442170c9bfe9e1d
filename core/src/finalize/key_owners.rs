//! Ownership of keys that files of the same name share (`file_overwrite`).
//!
//! The owner of a key is recorded in a row of its own, which changes by compare-and-set. The row also tells whether a
//! request that changes the object may be in flight: a transfer, or the deletion of a purge. A file that wants the key
//! waits for those. If a request was never answered (its process was killed or frozen, or the connection broke), the
//! store may carry it out at any time. The key is then retired for [`RETIREMENT`]: its owner keeps it, and other files
//! of the name get keys of their own, since a late request must never affect another file's object.

use super::claim::ClaimError;
use crate::{
    clock::later,
    outbox::{self, FileDeleted, NewEvent, WrittenEvent},
    quota,
    storage::StorageKey,
};
use entity::{
    FileId, Timestamp,
    file::{self, FileStatus, Model},
    storage_key_owner::{self, Column, Entity, KeyState},
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, IntoActiveModel, QueryFilter, QuerySelect,
    UpdateMany, sea_query::Expr,
};
use std::time::Duration;

/// For how long a request that was never answered may still be carried out.
pub(crate) const RETIREMENT: Duration = Duration::from_secs(60 * 60);

/// Timeout of a purge's single request, after which its hold counts as abandoned.
const PURGE_HOLD: Duration = Duration::from_secs(35);

/// How soon a file that waits for a key checks again.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The outcome of acquiring a key.
#[derive(Debug)]
pub(super) enum KeyAcquisition {
    /// The file owns the key; the events announce the file that it replaced, if any.
    Owned(Vec<WrittenEvent>),
    /// Another file still needs the key.
    Wait(Timestamp),
    /// A request of another file may still be carried out at this key.
    Retired,
}

/// Makes `file` the owner of `key`, for a transfer that is about to start. If a stored file owns the key, that file is
/// deleted, with an event, before the first of its bytes is overwritten.
///
/// # Errors
/// [`ClaimError`]; the transaction must be rolled back.
pub(super) async fn acquire(
    transaction: &impl ConnectionTrait,
    key: &StorageKey,
    file: &Model,
    now: Timestamp,
) -> Result<KeyAcquisition, ClaimError> {
    let owner = Entity::find_by_id(key.as_str())
        .lock_exclusive()
        .one(transaction)
        .await?;
    let uncertain_at = owner.as_ref().and_then(|owner| owner.uncertain_since(now));
    let holder = match &owner {
        Some(owner) if owner.file_id == file.id => None,
        Some(owner) => {
            file::Entity::find_by_id(owner.file_id)
                .one(transaction)
                .await?
        }
        None => holder(transaction, key, file.id).await?,
    };
    let mut replaced = Vec::new();
    if let Some(holder) = &holder {
        if is_on_its_way(holder) {
            return Ok(KeyAcquisition::Wait(later(now, POLL_INTERVAL)));
        }
        if let Some(until) = owner.as_ref().and_then(|owner| owner.deleting_until(now)) {
            return Ok(KeyAcquisition::Wait(until.min(later(now, POLL_INTERVAL))));
        }
        if uncertain_at.is_some_and(|at| later(at, RETIREMENT) > now) {
            return Ok(KeyAcquisition::Retired);
        }
        replaced = displace(transaction, holder, now).await?;
    }
    let is_new = owner.is_none();
    let row = storage_key_owner::Model {
        key: key.as_str().to_owned(),
        file_id: file.id,
        state: KeyState::Writing,
        held_until: None,
        uncertain_at: uncertain_at.filter(|at| later(*at, RETIREMENT) > now),
        updated_at: now,
    };
    if is_new {
        Entity::insert(row.into_active_model())
            .exec_without_returning(transaction)
            .await?;
    } else {
        write(transaction, row).await?;
    }
    Ok(KeyAcquisition::Owned(replaced))
}

/// The file that has the key since before keys had owners.
async fn holder(
    transaction: &impl ConnectionTrait,
    key: &StorageKey,
    other_than: FileId,
) -> Result<Option<Model>, DbErr> {
    file::Entity::find()
        .filter(file::Column::StorageKey.eq(key.as_str()))
        .filter(file::Column::Id.ne(other_than))
        .one(transaction)
        .await
}

fn is_on_its_way(file: &Model) -> bool {
    matches!(
        file.status,
        FileStatus::Uploading | FileStatus::Staged | FileStatus::Finalizing
    )
}

/// Makes the holder give up its key; a stored file is deleted.
async fn displace(
    transaction: &impl ConnectionTrait,
    holder: &Model,
    now: Timestamp,
) -> Result<Vec<WrittenEvent>, ClaimError> {
    let is_stored = holder.status == FileStatus::Stored;
    if is_stored {
        quota::release(transaction, holder).await?;
    }
    let mut update = file::Entity::update_many()
        .col_expr(
            file::Column::StorageKey,
            Expr::value(Option::<String>::None),
        )
        .col_expr(file::Column::UpdatedAt, Expr::value(now))
        .filter(file::Column::Id.eq(holder.id))
        .filter(file::Column::Status.eq(holder.status));
    if is_stored {
        update = update
            .col_expr(file::Column::Status, Expr::value(FileStatus::Deleted))
            .col_expr(file::Column::DeletedAt, Expr::value(now));
    }
    if update.exec(transaction).await?.rows_affected == 0 {
        return Err(ClaimError::OwnerChanged);
    }
    if !is_stored {
        return Ok(Vec::new());
    }
    let event = NewEvent::file_deleted(FileDeleted::from_model(holder, now), holder);
    Ok(vec![outbox::write(transaction, now, event).await?])
}

async fn write(
    transaction: &impl ConnectionTrait,
    row: storage_key_owner::Model,
) -> Result<(), DbErr> {
    Entity::update_many()
        .col_expr(Column::FileId, Expr::value(row.file_id))
        .col_expr(Column::State, Expr::value(row.state))
        .col_expr(Column::HeldUntil, Expr::value(row.held_until))
        .col_expr(Column::UncertainAt, Expr::value(row.uncertain_at))
        .col_expr(Column::UpdatedAt, Expr::value(row.updated_at))
        .filter(Column::Key.eq(row.key))
        .exec(transaction)
        .await
        .map(drop)
}

/// Records that every request of a transfer to these keys was answered.
///
/// # Errors
/// Database errors.
pub(super) async fn transfer_answered(
    transaction: &impl ConnectionTrait,
    keys: Vec<(StorageKey, FileId)>,
    now: Timestamp,
) -> Result<(), DbErr> {
    for (key, file) in keys {
        idle(key.as_str(), file, now)
            .filter(Column::State.eq(KeyState::Writing))
            .exec(transaction)
            .await?;
    }
    Ok(())
}

fn idle(key: &str, file: FileId, now: Timestamp) -> UpdateMany<Entity> {
    Entity::update_many()
        .col_expr(Column::State, Expr::value(KeyState::Idle))
        .col_expr(Column::HeldUntil, Expr::value(Option::<Timestamp>::None))
        .col_expr(Column::UpdatedAt, Expr::value(now))
        .filter(Column::Key.eq(key))
        .filter(Column::FileId.eq(file))
}

/// What a purge may do with the object at its file's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PurgeHold {
    /// The key is held for this purge until then; other files wait.
    Held(Timestamp),
    /// Another purge of the file holds the key.
    Busy,
    /// Another file owns the key, so the object is not this file's.
    NotOwner,
}

/// Holds the key for a purge of `file`, before the request is sent.
///
/// # Errors
/// Database errors.
pub(crate) async fn hold_for_purge(
    transaction: &impl ConnectionTrait,
    key: &str,
    file: FileId,
    now: Timestamp,
) -> Result<PurgeHold, DbErr> {
    let owner = Entity::find_by_id(key)
        .lock_exclusive()
        .one(transaction)
        .await?;
    let until = later(now, PURGE_HOLD);
    let mut row = storage_key_owner::Model {
        key: key.to_owned(),
        file_id: file,
        state: KeyState::Deleting,
        held_until: Some(until),
        uncertain_at: None,
        updated_at: now,
    };
    match owner {
        None => {
            Entity::insert(row.into_active_model())
                .exec_without_returning(transaction)
                .await?;
        }
        Some(owner) if owner.file_id != file => return Ok(PurgeHold::NotOwner),
        Some(owner) if owner.deleting_until(now).is_some() => return Ok(PurgeHold::Busy),
        Some(owner) => {
            row.uncertain_at = owner.uncertain_since(now);
            write(transaction, row).await?;
        }
    }
    Ok(PurgeHold::Held(until))
}

/// Ends the hold of a purge, which lasts until `held`. If the store has not `answered` the request, the key is retired.
///
/// # Errors
/// Database errors.
pub(crate) async fn end_purge(
    transaction: &impl ConnectionTrait,
    key: &str,
    file: FileId,
    held: Timestamp,
    answered: bool,
    now: Timestamp,
) -> Result<(), DbErr> {
    let mut update = idle(key, file, now)
        .filter(Column::State.eq(KeyState::Deleting))
        .filter(Column::HeldUntil.eq(held));
    if !answered {
        update = update.col_expr(Column::UncertainAt, Expr::value(now));
    }
    update.exec(transaction).await.map(drop)
}

/// Interprets the state of a key at a given time.
trait KeyTimes {
    /// Until when a purge holds the key, if one does.
    fn deleting_until(&self, now: Timestamp) -> Option<Timestamp>;

    /// Since when a request may be in flight that no process waits for any more. A state that was not left cleanly
    /// counts as such a request.
    fn uncertain_since(&self, now: Timestamp) -> Option<Timestamp>;
}

impl KeyTimes for storage_key_owner::Model {
    fn deleting_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.held_until
            .filter(|until| self.state == KeyState::Deleting && *until > now)
    }

    fn uncertain_since(&self, now: Timestamp) -> Option<Timestamp> {
        match self.state {
            KeyState::Idle => self.uncertain_at,
            KeyState::Writing | KeyState::Deleting => Some(now),
        }
    }
}
