//! Quotas: how many bytes each owner has stored and staged, and how many are allowed (`uploads.owner_quota`).
//!
//! Bytes are counted per file, in the transaction that gives a file its size or releases its bytes, so usage is never
//! summed up over files. Stored metadata counts as well. A tus partial upload counts on its own until a final upload
//! makes it part of a file. An upload whose length is deferred counts the bytes received so far.
//!
//! The quota is never exceeded, however many uploads run concurrently and over whatever protocol. Transactions that
//! count against a quota first lock one counter of the owner, so the second of two sees the first. Bytes whose number
//! is not recorded yet (whole files, deferred lengths) are reserved before they are staged: see [`Reservation`]. A
//! crash leaves a reservation that expires.
//!
//! Files without an owner are not counted: without tokens there are no owners, and `staging.quota` is the limit.

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

/// Number of counters per owner: this many of its uploads can be recorded concurrently on PostgreSQL.
const SHARDS: u128 = 8;

/// The counter that is locked first when bytes are counted against a quota.
const LOCKED: i32 = 0;

/// Why an owner's upload is rejected.
#[derive(Debug, thiserror::Error)]
pub enum QuotaError {
    #[error(
        "an owner may have {quota} bytes, stored and in progress, and this upload would exceed that"
    )]
    Exceeded {
        /// In bytes.
        quota: u64,
    },
    #[error("the owner's bytes could not be counted")]
    Database(#[from] DbErr),
}

/// Returns how many bytes an owner uses.
///
/// # Errors
/// Database errors.
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

/// Rejects an upload of `more` bytes in advance, by the current usage. The binding check is made by `add`.
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

/// The bytes counted for a file: its content and its stored metadata.
#[must_use]
pub(crate) fn file_usage(file: &file::Model) -> i64 {
    file.size_bytes
        .saturating_add(metadata_size(&file.metadata))
}

/// The bytes counted for an upload when it starts, including its file if it has one.
#[must_use]
pub(crate) fn initial_usage(upload: &upload::Model, file: Option<&file::Model>) -> i64 {
    match file {
        Some(file) => file_usage(file),
        None => partial_usage(upload),
    }
}

/// The bytes counted for a partial upload on its own.
#[must_use]
pub(crate) fn partial_usage(upload: &upload::Model) -> i64 {
    debug_assert_eq!(upload.kind, UploadKind::Partial);
    let bytes = upload.total_size_bytes.unwrap_or(upload.bytes_received);
    bytes.saturating_add(staged_text_size(upload))
}

/// Size of a partial upload's metadata, in bytes; it is stored only to be returned to the client.
#[must_use]
pub(crate) fn staged_text_size(upload: &upload::Model) -> i64 {
    let length = upload.tus_metadata.as_ref().map_or(0, String::len);
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// Zero for an object without fields, the usual case.
#[must_use]
pub(crate) fn metadata_size(metadata: &serde_json::Value) -> i64 {
    match metadata.as_object() {
        Some(fields) if fields.is_empty() => 0,
        _ => i64::try_from(metadata.to_string().len()).unwrap_or(i64::MAX),
    }
}

/// Bytes to be counted against a quota.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QuotaAddition<'a> {
    /// `None` is not counted.
    pub(crate) owner: Option<&'a str>,
    /// The id of the file or upload.
    pub(crate) id: Uuid,
    pub(crate) bytes: i64,
    pub(crate) quota: Option<ByteSize>,
    /// The reservation that is reduced by these bytes.
    pub(crate) reserved: Option<ReservationId>,
    pub(crate) now: Timestamp,
}

/// Counts bytes added by a file or upload.
///
/// # Errors
/// [`QuotaError::Exceeded`] when the quota is exhausted; the transaction must then be rolled back.
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

/// Changes the owner's locked counter, so that others that count against the quota wait for this transaction.
async fn lock_and_change(
    transaction: &impl ConnectionTrait,
    owner: &str,
    bytes: i64,
) -> Result<(), DbErr> {
    upsert(transaction, [((owner, LOCKED), bytes)]).await
}

/// With the lock held, checks that all counted and reserved bytes are within the quota.
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

/// A change of an owner's usage by a file or upload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QuotaChange<'a> {
    /// `None` is not counted.
    pub(crate) owner: Option<&'a str>,
    /// The id of the file or upload.
    pub(crate) id: Uuid,
    pub(crate) bytes: i64,
}

/// Counts a change that needs no quota check: there is no quota, or bytes are released.
///
/// # Errors
/// Database errors.
pub(crate) async fn change(
    transaction: &impl ConnectionTrait,
    owner: Option<&str>,
    id: Uuid,
    bytes: i64,
) -> Result<(), DbErr> {
    change_all(transaction, [QuotaChange { owner, id, bytes }]).await
}

/// Releases the bytes of a file that was deleted or never completed.
///
/// # Errors
/// Database errors.
pub(crate) async fn release(
    transaction: &impl ConnectionTrait,
    file: &file::Model,
) -> Result<(), DbErr> {
    change(
        transaction,
        file.owner.as_deref(),
        file.id.0,
        -file_usage(file),
    )
    .await
}

/// [`change`] for several changes, in one statement.
///
/// # Errors
/// Database errors.
pub(crate) async fn change_all(
    transaction: &impl ConnectionTrait,
    changes: impl IntoIterator<Item = QuotaChange<'_>>,
) -> Result<(), DbErr> {
    // In key order, so that concurrent transactions do not deadlock.
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
