//! The key each object will have, reserved with the claim: the plain one when it is free, else one with random characters.

use super::claim::{ClaimError, Claimed};
use crate::{
    outbox::{self, FileDeleted, NewEvent, Written},
    storage::StorageKey,
    usage,
};
use entity::{
    Timestamp,
    file::{Column, Entity, FileStatus, Model},
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QuerySelect,
    sea_query::{CaseStatement, Expr},
};
use std::collections::HashSet;

/// What is asked of the keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wishes {
    /// Always the plain key, whoever has it (`file_overwrite`).
    pub(super) overwrite: bool,
    /// No plain key at all: it was free a moment ago and is not any more.
    pub(super) plain_is_taken: bool,
    pub(super) now: Timestamp,
}

/// Gives each of these claimed files its key. The unique index refuses a key that another file took meanwhile.
///
/// # Errors
/// [`ClaimError`]; the transaction must be rolled back.
pub(super) async fn give(
    transaction: &impl ConnectionTrait,
    files: Vec<Model>,
    wishes: Wishes,
) -> Result<Vec<Claimed>, ClaimError> {
    let mut claimed: Vec<Claimed> = files
        .into_iter()
        .map(|file| Claimed {
            key: StorageKey::for_upload(&file.original_filename, file.created_at),
            file,
            replaced: Vec::new(),
        })
        .collect();
    if wishes.overwrite {
        // In one order, so that two who take keys over do not wait for each other.
        claimed.sort_by(|one, other| one.key.as_str().cmp(other.key.as_str()));
        for one in &mut claimed {
            one.replaced = take_over(transaction, &one.key, wishes.now).await?;
        }
    } else if wishes.plain_is_taken {
        for one in &mut claimed {
            one.key = one.key.deduplicated(&mut rand::rng());
        }
    } else {
        let mut taken = holders(transaction, &claimed).await?;
        for one in &mut claimed {
            if !taken.insert(one.key.as_str().to_owned()) {
                one.key = one.key.deduplicated(&mut rand::rng());
            }
        }
    }
    reserve(transaction, &mut claimed).await?;
    Ok(claimed)
}

/// Which of the keys some file has.
async fn holders(
    transaction: &impl ConnectionTrait,
    claimed: &[Claimed],
) -> Result<HashSet<String>, DbErr> {
    let keys: Vec<Option<String>> = Entity::find()
        .select_only()
        .column(Column::StorageKey)
        .filter(Column::StorageKey.is_in(claimed.iter().map(|one| one.key.as_str())))
        .into_tuple()
        .all(transaction)
        .await?;
    Ok(keys.into_iter().flatten().collect())
}

async fn reserve(transaction: &impl ConnectionTrait, claimed: &mut [Claimed]) -> Result<(), DbErr> {
    let keys = claimed.iter().fold(CaseStatement::new(), |case, one| {
        case.case(Column::Id.eq(one.file.id), Expr::val(one.key.as_str()))
    });
    Entity::update_many()
        .col_expr(Column::StorageKey, keys.into())
        .filter(Column::Id.is_in(claimed.iter().map(|one| one.file.id)))
        .exec(transaction)
        .await?;
    for one in claimed {
        one.file.storage_key = Some(one.key.as_str().to_owned());
    }
    Ok(())
}

/// With `file_overwrite`, a stored file gives up its key to the newer one and is deleted, now and in the open,
/// before the first of its bytes is overwritten. A file still on its way keeps the key until it is final: the
/// unique index refuses the claim, and it is tried again.
async fn take_over(
    transaction: &impl ConnectionTrait,
    key: &StorageKey,
    now: Timestamp,
) -> Result<Vec<Written>, ClaimError> {
    let gives_up = |from: FileStatus| {
        Entity::update_many()
            .col_expr(Column::StorageKey, Expr::value(Option::<String>::None))
            .col_expr(Column::UpdatedAt, Expr::value(now))
            .filter(Column::StorageKey.eq(key.as_str()))
            .filter(Column::Status.eq(from))
    };
    // One that was deleted before, and whose object was yet to be removed, has been announced.
    gives_up(FileStatus::Deleted).exec(transaction).await?;
    let replaced = gives_up(FileStatus::Stored)
        .col_expr(Column::Status, Expr::value(FileStatus::Deleted))
        .col_expr(Column::DeletedAt, Expr::value(now))
        .exec_with_returning(transaction)
        .await?;
    let mut written = Vec::new();
    for file in replaced {
        usage::give_back(transaction, &file).await?;
        let event = NewEvent::file_deleted(FileDeleted::of(&file, now), &file);
        written.push(outbox::write(transaction, now, event).await?);
    }
    Ok(written)
}
