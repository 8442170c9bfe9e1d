//! How many bytes each owner has, stored and waiting, and how many one may have (`uploads.owner_quota`).
//!
//! Counted by file, in the transaction that gives a file its size or takes its bytes away, so nothing is ever summed up
//! over files. The metadata kept with a file counts too. A tus partial upload counts by itself until a final one makes
//! it part of a file. An upload whose length is deferred counts what has come of it.
//!
//! The quota is never exceeded, however many uploads come at once and by whatever protocol. Who counts against it locks
//! one counter of the owner first, so of two who count the second sees the first. Bytes of which no row says yet how
//! many they are (whole files, deferred lengths) are reserved before they are staged: see [`Reservation`]. A crash
//! leaves a reservation that ends by itself.
//!
//! Files without an owner are not counted: without tokens there are no owners, and `staging.quota` is the bound.

mod reservation;

use crate::config::ByteSize;
use entity::{
    Timestamp, file,
    owner_usage::{Column, Entity, Model},
    upload::{self, UploadKind},
};
pub use reservation::{Reservation, ReservationId, SharedReservation, within_quota};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, IntoActiveModel, QueryFilter, QuerySelect,
    sea_query::{Expr, ExprTrait, OnConflict},
};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Counters of one owner: as many of its uploads are recorded at once on PostgreSQL.
const SHARDS: u128 = 8;

/// The counter that whoever counts against a quota locks first.
const LOCKED: i32 = 0;

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
pub async fn usage(db: &impl ConnectionTrait, owner: &str) -> Result<u64, DbErr> {
    let counters: Vec<i64> = Entity::find()
        .select_only()
        .column(Column::Bytes)
        .filter(Column::Owner.eq(owner))
        .into_tuple()
        .all(db)
        .await?;
    Ok(u64::try_from(counters.iter().sum::<i64>()).unwrap_or(0))
}

/// Refuses an upload of `more` bytes beforehand, by what is counted at this moment. The count itself is [`add`]'s.
///
/// # Errors
/// [`QuotaError`].
pub async fn require_room(
    db: &impl ConnectionTrait,
    owner: Option<&str>,
    more: u64,
    quota: Option<ByteSize>,
) -> Result<(), QuotaError> {
    let (Some(owner), Some(quota)) = (owner, quota) else {
        return Ok(());
    };
    match more > quota.0.saturating_sub(usage(db, owner).await?) {
        true => Err(QuotaError::Exceeded { quota: quota.0 }),
        false => Ok(()),
    }
}

/// What a file counts: its bytes, and the metadata kept with it.
#[must_use]
pub(crate) fn weight(file: &file::Model) -> i64 {
    file.size_bytes.saturating_add(kept(&file.metadata))
}

/// What an upload counts when it begins, with its file if it has one.
#[must_use]
pub(crate) fn weight_begun(upload: &upload::Model, file: Option<&file::Model>) -> i64 {
    match file {
        Some(file) => weight(file),
        None => partial(upload),
    }
}

/// What a partial upload counts by itself.
#[must_use]
pub(crate) fn partial(upload: &upload::Model) -> i64 {
    debug_assert_eq!(upload.kind, UploadKind::Partial);
    let bytes = upload.total_size_bytes.unwrap_or(upload.bytes_received);
    bytes.saturating_add(staged_text_size(upload))
}

/// The metadata of a partial upload, in bytes: kept to be told again, and for nothing else.
#[must_use]
pub(crate) fn staged_text_size(upload: &upload::Model) -> i64 {
    let length = upload.tus_metadata.as_ref().map_or(0, String::len);
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// Nothing for an object without fields, as most have it.
#[must_use]
pub(crate) fn kept(metadata: &serde_json::Value) -> i64 {
    match metadata.as_object() {
        Some(fields) if fields.is_empty() => 0,
        _ => i64::try_from(metadata.to_string().len()).unwrap_or(i64::MAX),
    }
}

/// Bytes that count against a quota.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QuotaAddition<'a> {
    /// None: not counted.
    pub(crate) owner: Option<&'a str>,
    /// Of the file or upload.
    pub(crate) id: Uuid,
    pub(crate) bytes: i64,
    pub(crate) quota: Option<ByteSize>,
    /// Where they were reserved: as much of the reservation is given back.
    pub(crate) reserved: Option<ReservationId>,
    pub(crate) now: Timestamp,
}

/// Counts bytes that a file or upload adds.
///
/// # Errors
/// [`QuotaError::Exceeded`] when there is no room for them; the transaction must be rolled back then.
pub(crate) async fn add(
    transaction: &impl ConnectionTrait,
    addition: QuotaAddition<'_>,
) -> Result<(), QuotaError> {
    let QuotaAddition {
        owner, id, bytes, ..
    } = addition;
    let (Some(name), Some(quota)) = (owner, addition.quota) else {
        return Ok(change(transaction, owner, id, bytes).await?);
    };
    lock_and_change(transaction, name, bytes).await?;
    if let Some(reservation) = addition.reserved {
        reservation::release(transaction, reservation, bytes).await?;
    }
    require_within(transaction, name, quota, addition.now).await
}

/// The owner's locked counter is changed: whoever counts against the quota as well waits for this transaction.
async fn lock_and_change(
    transaction: &impl ConnectionTrait,
    owner: &str,
    bytes: i64,
) -> Result<(), DbErr> {
    upsert(transaction, [((owner, LOCKED), bytes)]).await
}

/// With the lock held: all that is counted and reserved is within the quota.
async fn require_within(
    transaction: &impl ConnectionTrait,
    owner: &str,
    quota: ByteSize,
    now: Timestamp,
) -> Result<(), QuotaError> {
    let counted = usage(transaction, owner).await?;
    let reserved = reservation::reserved_bytes(transaction, owner, now).await?;
    match counted.saturating_add(reserved) > quota.0 {
        true => Err(QuotaError::Exceeded { quota: quota.0 }),
        false => Ok(()),
    }
}

/// Bytes that a file or an upload adds to its owner's, or takes away.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QuotaChange<'a> {
    /// None: not counted.
    pub(crate) owner: Option<&'a str>,
    /// Of the file or upload.
    pub(crate) id: Uuid,
    pub(crate) bytes: i64,
}

/// Counts a change that no quota stands against: there is none, or the bytes are gone.
///
/// # Errors
/// The database's.
pub(crate) async fn change(
    transaction: &impl ConnectionTrait,
    owner: Option<&str>,
    id: Uuid,
    bytes: i64,
) -> Result<(), DbErr> {
    change_all(transaction, [QuotaChange { owner, id, bytes }]).await
}

/// The bytes of a file that is gone, or never came to be, are its owner's no more.
///
/// # Errors
/// The database's.
pub(crate) async fn release(
    transaction: &impl ConnectionTrait,
    file: &file::Model,
) -> Result<(), DbErr> {
    change(transaction, file.owner.as_deref(), file.id.0, -weight(file)).await
}

/// [`change`] for several, in one statement.
///
/// # Errors
/// The database's.
pub(crate) async fn change_all(
    transaction: &impl ConnectionTrait,
    changes: impl IntoIterator<Item = QuotaChange<'_>>,
) -> Result<(), DbErr> {
    // In the order of the key, so that two who count do not wait for each other.
    let mut counters: BTreeMap<(&str, i32), i64> = BTreeMap::new();
    for change in changes.into_iter().filter(|change| change.bytes != 0) {
        let shard = i32::try_from(change.id.as_u128() % SHARDS).unwrap_or(LOCKED);
        if let Some(owner) = change.owner {
            *counters.entry((owner, shard)).or_default() += change.bytes;
        }
    }
    if counters.is_empty() {
        return Ok(());
    }
    upsert(transaction, counters).await
}

async fn upsert(
    transaction: &impl ConnectionTrait,
    counters: impl IntoIterator<Item = ((&str, i32), i64)>,
) -> Result<(), DbErr> {
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
