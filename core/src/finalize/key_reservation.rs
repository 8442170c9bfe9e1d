//! The key each object will have, reserved with the claim: the plain one when no file ever had it, else one with
//! random characters. A key is used once: the rows of deleted files keep theirs.

use super::claim::{ClaimError, ClaimedFile};
use crate::storage::StorageKey;
use entity::file::{Column, Entity, Model};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QuerySelect,
    sea_query::{CaseStatement, Expr},
};
use std::collections::HashSet;

/// How keys are chosen.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyPolicy {
    /// Always the plain key, whose owner the caller settles (`file_overwrite`).
    pub(super) overwrite: bool,
    /// No plain key at all: it was free a moment ago and is not any more.
    pub(super) plain_is_taken: bool,
}

/// Gives each of these claimed files its key. The unique index refuses a key that another file took meanwhile.
///
/// # Errors
/// [`ClaimError`]; the transaction must be rolled back.
pub(super) async fn reserve(
    transaction: &impl ConnectionTrait,
    files: Vec<Model>,
    policy: KeyPolicy,
) -> Result<Vec<ClaimedFile>, ClaimError> {
    let mut claimed: Vec<ClaimedFile> = files
        .into_iter()
        .map(|file| {
            let key = StorageKey::for_upload(&file.original_filename, file.created_at);
            ClaimedFile::new(key, file)
        })
        .collect();
    if policy.overwrite {
        return Ok(claimed);
    }
    if policy.plain_is_taken {
        for one in &mut claimed {
            one.key = one.key.deduplicated(&mut rand::rng());
        }
    } else {
        let mut taken = used_keys(transaction, &claimed).await?;
        for one in &mut claimed {
            if !taken.insert(one.key.as_str().to_owned()) {
                one.key = one.key.deduplicated(&mut rand::rng());
            }
        }
    }
    write_keys(transaction, &mut claimed).await?;
    Ok(claimed)
}

/// Which of the keys some file has or had.
async fn used_keys(
    transaction: &impl ConnectionTrait,
    claimed: &[ClaimedFile],
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

/// Writes the keys of those that do not have theirs yet.
///
/// # Errors
/// The database's; among them the unique index's.
pub(super) async fn write_keys(
    transaction: &impl ConnectionTrait,
    claimed: &mut [ClaimedFile],
) -> Result<(), DbErr> {
    let is_new = |one: &&ClaimedFile| one.file.storage_key.as_deref() != Some(one.key.as_str());
    let new: Vec<&ClaimedFile> = claimed.iter().filter(is_new).collect();
    if new.is_empty() {
        return Ok(());
    }
    let keys = new.iter().fold(CaseStatement::new(), |case, one| {
        case.case(Column::Id.eq(one.file.id), Expr::val(one.key.as_str()))
    });
    Entity::update_many()
        .col_expr(Column::StorageKey, keys.into())
        .filter(Column::Id.is_in(new.iter().map(|one| one.file.id)))
        .exec(transaction)
        .await?;
    for one in claimed {
        one.file.storage_key = Some(one.key.as_str().to_owned());
    }
    Ok(())
}
