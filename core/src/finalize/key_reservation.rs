//! Reserves the key of each object with the claim: the plain key if no file ever had it, otherwise one with random
//! characters. A key is never reused, because the rows of deleted files keep theirs.

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
    /// Always use the plain key; the caller resolves its ownership (`file_overwrite`).
    pub(super) overwrite: bool,
    /// Never use the plain key: it was free when it was checked, but no longer is.
    pub(super) plain_is_taken: bool,
}

/// Reserves a key for each of these claimed files. The unique index rejects a key that another file took in the
/// meantime.
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

/// Returns which of the keys a file has or had.
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

/// Writes the keys of the files that have none yet.
///
/// # Errors
/// Database errors, including violations of the unique index.
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
