//! How many bytes each owner has, stored and waiting, and how many one may have (`uploads.owner_quota`).
//!
//! Counted by file, in the transaction that gives a file its size or takes its bytes away, so nothing is ever summed up
//! over files. A tus partial upload counts by itself until a final one makes it part of a file. An upload whose length
//! is deferred counts once its length is known.
//!
//! Files without an owner are not counted: without tokens there are no owners, and `staging.quota` is the bound.

use crate::config::ByteSize;
use entity::{
    file,
    owner_usage::{Column, Entity, Model},
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, IntoActiveModel, QueryFilter, QuerySelect,
    sea_query::{Expr, ExprTrait, OnConflict},
};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Counters of one owner: as many of its uploads are recorded at once on PostgreSQL.
const SHARDS: u128 = 8;

/// Why no more is taken in of an owner.
#[derive(Debug, thiserror::Error)]
pub enum QuotaError {
    #[error(
        "an owner may have {quota} bytes, stored and on their way, and this upload would make it more"
    )]
    Exceeded {
        /// In bytes.
        quota: u64,
    },
    #[error("the owner's bytes could not be counted")]
    Database(#[from] DbErr),
}

/// How many bytes an owner has.
///
/// # Errors
/// The database's.
pub async fn of(db: &impl ConnectionTrait, owner: &str) -> Result<u64, DbErr> {
    let counters: Vec<i64> = Entity::find()
        .select_only()
        .column(Column::Bytes)
        .filter(Column::Owner.eq(owner))
        .into_tuple()
        .all(db)
        .await?;
    Ok(u64::try_from(counters.iter().sum::<i64>()).unwrap_or(0))
}

/// How many bytes an owner may still have; none without an owner or a quota.
///
/// # Errors
/// The database's.
pub async fn room(
    db: &impl ConnectionTrait,
    owner: Option<&str>,
    quota: Option<ByteSize>,
) -> Result<Option<u64>, DbErr> {
    match (owner, quota) {
        (Some(owner), Some(quota)) => Ok(Some(quota.0.saturating_sub(of(db, owner).await?))),
        _ => Ok(None),
    }
}

/// Refuses an upload of `more` bytes beforehand. The count itself is [`add`]'s.
///
/// # Errors
/// [`QuotaError`].
pub async fn require_room(
    db: &impl ConnectionTrait,
    owner: Option<&str>,
    more: u64,
    quota: Option<ByteSize>,
) -> Result<(), QuotaError> {
    match (room(db, owner, quota).await?, quota) {
        (Some(room), Some(quota)) if more > room => Err(QuotaError::Exceeded { quota: quota.0 }),
        _ => Ok(()),
    }
}

/// Counts `bytes` that the file or upload with this id adds.
///
/// # Errors
/// [`QuotaError::Exceeded`] when there is no room for them; the transaction must be rolled back then. Uploads recorded
/// at the same moment do not see each other on PostgreSQL, and may go beyond the quota together.
pub(crate) async fn add(
    transaction: &impl ConnectionTrait,
    owner: Option<&str>,
    id: Uuid,
    bytes: i64,
    quota: Option<ByteSize>,
) -> Result<(), QuotaError> {
    require_room(transaction, owner, bytes.unsigned_abs(), quota).await?;
    Ok(change(transaction, owner, id, bytes).await?)
}

/// Bytes that a file or an upload adds to its owner's, or takes away.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change<'a> {
    /// None: not counted.
    pub(crate) owner: Option<&'a str>,
    /// Of the file or upload.
    pub(crate) id: Uuid,
    pub(crate) bytes: i64,
}

/// Counts a change that no quota stands against: the bytes are gone, or are more than was said of them.
///
/// # Errors
/// The database's.
pub(crate) async fn change(
    transaction: &impl ConnectionTrait,
    owner: Option<&str>,
    id: Uuid,
    bytes: i64,
) -> Result<(), DbErr> {
    change_all(transaction, [Change { owner, id, bytes }]).await
}

/// The bytes of a file that is gone, or never came to be, are its owner's no more.
///
/// # Errors
/// The database's.
pub(crate) async fn give_back(
    transaction: &impl ConnectionTrait,
    file: &file::Model,
) -> Result<(), DbErr> {
    change(
        transaction,
        file.owner.as_deref(),
        file.id.0,
        -file.size_bytes,
    )
    .await
}

/// [`change`] for several, in one statement.
///
/// # Errors
/// The database's.
pub(crate) async fn change_all(
    transaction: &impl ConnectionTrait,
    changes: impl IntoIterator<Item = Change<'_>>,
) -> Result<(), DbErr> {
    // In the order of the key, so that two who count do not wait for each other.
    let mut counters: BTreeMap<(&str, i32), i64> = BTreeMap::new();
    for change in changes.into_iter().filter(|change| change.bytes != 0) {
        let shard = i32::try_from(change.id.as_u128() % SHARDS).unwrap_or(0);
        if let Some(owner) = change.owner {
            *counters.entry((owner, shard)).or_default() += change.bytes;
        }
    }
    if counters.is_empty() {
        return Ok(());
    }
    let rows = counters.into_iter().map(|((owner, shard), bytes)| Model {
        owner: owner.to_owned(),
        shard,
        bytes,
    });
    let sum = Expr::col((Entity, Column::Bytes)).add(Expr::cust("excluded.bytes"));
    Entity::insert_many(rows.map(IntoActiveModel::into_active_model))
        .on_conflict(
            OnConflict::columns([Column::Owner, Column::Shard])
                .value(Column::Bytes, sum)
                .to_owned(),
        )
        .exec_without_returning(transaction)
        .await
        .map(drop)
}
