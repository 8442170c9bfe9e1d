//! `Idempotency-Key`: the response to the first request is stored and replayed to repetitions of the request
//! (draft-ietf-httpapi-idempotency-key-header).
//!
//! Owns the rows of `idempotency_keys`. Only successful responses are stored: a request that failed changed nothing,
//! and its key is free again. While the first request is running it holds a lock that it renews; after a crash the lock
//! expires, and the next request with the key counts as the first. The response is stored by the transaction that does
//! the work ([`PendingResponse`]), so a crash leaves both or neither; or by a separate one after it ([`finish`]), where
//! the work only announces an event again, which is harmless to repeat.

use crate::{clock::Clock, db::Database, digest::Sha256Digest};
use entity::{
    Timestamp,
    idempotency_key::{Column, Entity, Model},
};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, IntoActiveModel, QueryFilter,
    QueryOrder, QuerySelect, QueryTrait, UpdateMany,
    sea_query::{Expr, OnConflict},
};
use std::{error::Error, fmt, time::Duration};
use uuid::Uuid;

/// How long a response is kept.
pub const RETENTION: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the lock of a first request lasts without renewal.
pub const LOCK_DURATION: Duration = Duration::from_secs(30);

/// Approximate maximum number of responses kept per owner: more than a client needs in a day, and few enough for any
/// database.
pub const MAX_KEYS: u64 = 100_000;

/// Maximum number of responses that one request deletes when there are too many.
const DELETE_BATCH_SIZE: u64 = 1000;

/// Maximum length of a key, in bytes.
pub const MAX_KEY_LEN: usize = 255;

/// The exclusive right to store the response of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyLock {
    id: String,
    /// Identifies the holder of the lock.
    holder: Uuid,
}

/// The response to a first request whose work returns a `T`, to be stored by the transaction that does the work.
pub struct PendingResponse<T> {
    lock: IdempotencyLock,
    fingerprint: String,
    answer: MakeResponse<T>,
}

type MakeResponse<T> =
    Box<dyn FnOnce(&T) -> Result<StoredResponse, Box<dyn Error + Send + Sync>> + Send>;

/// Why the transaction must be rolled back.
#[derive(Debug, thiserror::Error)]
pub enum RecordResponseError {
    #[error("another request has taken over the key")]
    LockLost,
    #[error("the response could not be built")]
    StoredResponse(#[source] Box<dyn Error + Send + Sync>),
    #[error("the response could not be stored")]
    Database(#[from] DbErr),
}

/// A response as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredResponse {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// The state of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdempotencyEntry {
    /// The key is new: this request is the first.
    First(IdempotencyLock),
    /// The first request is still running.
    InFlight,
    /// The stored response and the fingerprint of the first request.
    Answered {
        fingerprint: String,
        answer: StoredResponse,
    },
}

/// Acquires the key for a request, or returns the state of the request that holds it.
///
/// # Errors
/// Database errors.
pub async fn acquire(
    db: &Database,
    clock: &Clock,
    owner: Option<&str>,
    key: &str,
) -> Result<IdempotencyEntry, DbErr> {
    let id = row_id(owner, key);
    let owner = owner.map(str::to_owned);
    let times @ (now, locked_until, _) = (
        clock.now(),
        clock.after(LOCK_DURATION),
        clock.after(RETENTION),
    );
    db.write(move |transaction| {
        Box::pin(async move {
            let holder = Uuid::now_v7();
            let lock = IdempotencyLock { id, holder };
            if insert(transaction, &lock, owner.clone(), times).await? {
                if is_chosen(&lock.id)
                    && let Some(owner) = &owner
                {
                    keep_newest(transaction, owner, MAX_KEYS, now).await?;
                }
                return Ok(IdempotencyEntry::First(lock));
            }
            let found = Entity::find_by_id(&lock.id).one(transaction).await?;
            match found {
                Some(row) if row.expires_at > now => match answered(&row) {
                    Some(entry) => Ok(entry),
                    None => displace(transaction, row, holder, now, locked_until).await,
                },
                Some(row) => {
                    let stale = Entity::delete_many()
                        .filter(Column::Id.eq(&row.id))
                        .filter(Column::ExpiresAt.eq(row.expires_at));
                    stale.exec(transaction).await?;
                    let first = insert(transaction, &lock, owner, times).await?;
                    Ok(if first {
                        IdempotencyEntry::First(lock)
                    } else {
                        IdempotencyEntry::InFlight
                    })
                }
                // Released between the two statements.
                None => Ok(IdempotencyEntry::InFlight),
            }
        })
    })
    .await
}

async fn insert(
    transaction: &impl ConnectionTrait,
    lock: &IdempotencyLock,
    owner: Option<String>,
    (now, locked_until, expires_at): (Timestamp, Timestamp, Timestamp),
) -> Result<bool, DbErr> {
    let row = Model {
        id: lock.id.clone(),
        fingerprint: Some(lock.lock()),
        status: None,
        headers: None,
        body: None,
        locked_until: Some(locked_until),
        created_at: now,
        expires_at,
        owner,
    };
    let unless_there = OnConflict::column(Column::Id).do_nothing().to_owned();
    let inserted = Entity::insert(row.into_active_model())
        .on_conflict(unless_there)
        .exec_without_returning(transaction)
        .await;
    match inserted {
        Ok(rows) => Ok(rows > 0),
        Err(DbErr::RecordNotInserted) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Selects one id in a few hundred, so that counting costs little.
fn is_chosen(id: &str) -> bool {
    id.starts_with("00")
}

/// Deletes the oldest responses of an owner with more than `most`, at most `DELETE_BATCH_SIZE`. Keys whose first
/// request is running are kept.
///
/// # Errors
/// Database errors.
pub async fn keep_newest(
    transaction: &impl ConnectionTrait,
    owner: &str,
    most: u64,
    now: Timestamp,
) -> Result<u64, DbErr> {
    let newest: Option<Timestamp> = Entity::find()
        .select_only()
        .column(Column::CreatedAt)
        .filter(Column::Owner.eq(owner))
        .order_by_desc(Column::CreatedAt)
        .offset(most)
        .limit(1)
        .into_tuple()
        .one(transaction)
        .await?;
    let Some(newest) = newest else {
        return Ok(0);
    };
    let old = Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(Column::Owner.eq(owner))
        .filter(Column::CreatedAt.lte(newest))
        .order_by_asc(Column::CreatedAt)
        .limit(DELETE_BATCH_SIZE)
        .into_query();
    let under_way = Condition::all()
        .add(Column::Status.is_null())
        .add(Column::LockedUntil.gt(now));
    let forgotten = Entity::delete_many()
        .filter(Column::Id.in_subquery(old))
        .filter(under_way.not())
        .exec(transaction)
        .await?;
    Ok(forgotten.rows_affected)
}

/// Takes over the lock of a first request that has stopped renewing it, so it must be dead.
async fn displace(
    transaction: &impl ConnectionTrait,
    row: Model,
    holder: Uuid,
    now: Timestamp,
    locked_until: Timestamp,
) -> Result<IdempotencyEntry, DbErr> {
    if row.locked_until.is_some_and(|until| until > now) {
        return Ok(IdempotencyEntry::InFlight);
    }
    let lock = IdempotencyLock { id: row.id, holder };
    let taken = Entity::update_many()
        .col_expr(Column::LockedUntil, Expr::value(locked_until))
        .col_expr(Column::Fingerprint, Expr::value(lock.lock()))
        .filter(Column::Id.eq(&lock.id))
        .filter(Column::Status.is_null())
        .filter(Column::LockedUntil.lte(now))
        .exec(transaction)
        .await?;
    Ok(match taken.rows_affected {
        0 => IdempotencyEntry::InFlight,
        _ => IdempotencyEntry::First(lock),
    })
}

fn answered(row: &Model) -> Option<IdempotencyEntry> {
    let status = u16::try_from(row.status?).ok()?;
    let headers = row.headers.clone().unwrap_or_default();
    Some(IdempotencyEntry::Answered {
        fingerprint: row.fingerprint.clone().unwrap_or_default(),
        answer: StoredResponse {
            status,
            headers: serde_json::from_value(headers).unwrap_or_default(),
            body: row.body.clone().unwrap_or_default(),
        },
    })
}

/// Renews the lock for another [`LOCK_DURATION`]. Returns false when it is lost.
///
/// # Errors
/// Database errors.
pub async fn renew(db: &Database, clock: &Clock, lock: &IdempotencyLock) -> Result<bool, DbErr> {
    let change =
        owned_by(lock).col_expr(Column::LockedUntil, Expr::value(clock.after(LOCK_DURATION)));
    db.write(move |transaction| {
        Box::pin(async move { Ok(change.exec(transaction).await?.rows_affected > 0) })
    })
    .await
}

/// Stores the response. Does nothing when the lock was lost, since another request has responded or will.
///
/// # Errors
/// Database errors.
pub async fn finish(
    db: &Database,
    lock: &IdempotencyLock,
    fingerprint: &str,
    answer: StoredResponse,
) -> Result<(), DbErr> {
    let change = answering(lock, fingerprint, answer)?;
    db.write(move |transaction| Box::pin(async move { change.exec(transaction).await.map(drop) }))
        .await
}

fn answering(
    lock: &IdempotencyLock,
    fingerprint: &str,
    answer: StoredResponse,
) -> Result<UpdateMany<Entity>, DbErr> {
    let headers =
        serde_json::to_value(answer.headers).map_err(|error| DbErr::Json(error.to_string()))?;
    Ok(owned_by(lock)
        .col_expr(Column::Fingerprint, Expr::value(fingerprint))
        .col_expr(Column::Status, Expr::value(i32::from(answer.status)))
        .col_expr(Column::Headers, Expr::value(headers))
        .col_expr(Column::Body, Expr::value(answer.body))
        .col_expr(Column::LockedUntil, Expr::value(Option::<Timestamp>::None)))
}

impl<T> PendingResponse<T> {
    /// `answer` makes the response from the result of the work.
    pub fn new(
        lock: IdempotencyLock,
        fingerprint: String,
        answer: impl FnOnce(&T) -> Result<StoredResponse, Box<dyn Error + Send + Sync>> + Send + 'static,
    ) -> Self {
        Self {
            lock,
            fingerprint,
            answer: Box::new(answer),
        }
    }

    /// Stores the response, if any, as the last statement of the transaction that did the work.
    ///
    /// # Errors
    /// [`RecordResponseError`]; the transaction must then be rolled back.
    pub async fn write(
        response: Option<Self>,
        transaction: &impl ConnectionTrait,
        done: &T,
    ) -> Result<(), RecordResponseError> {
        let Some(response) = response else {
            return Ok(());
        };
        let answer = (response.answer)(done).map_err(RecordResponseError::StoredResponse)?;
        let change = answering(&response.lock, &response.fingerprint, answer)?;
        match change.exec(transaction).await?.rows_affected {
            0 => Err(RecordResponseError::LockLost),
            _ => Ok(()),
        }
    }
}

impl<T> fmt::Debug for PendingResponse<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingResponse")
            .field("lock", &self.lock)
            .finish_non_exhaustive()
    }
}

/// Releases the key: the request failed and changed nothing.
///
/// # Errors
/// Database errors.
pub async fn release(db: &Database, lock: &IdempotencyLock) -> Result<(), DbErr> {
    let (id, lock) = (lock.id.clone(), lock.lock());
    db.write(move |transaction| {
        Box::pin(async move {
            Entity::delete_many()
                .filter(Column::Id.eq(id))
                .filter(Column::Status.is_null())
                .filter(Column::Fingerprint.eq(lock))
                .exec(transaction)
                .await
                .map(drop)
        })
    })
    .await
}

/// Deletes at most `limit` responses older than [`RETENTION`] and returns how many.
///
/// # Errors
/// Database errors.
pub async fn forget(db: &Database, clock: &Clock, limit: u64) -> Result<u64, DbErr> {
    let now = clock.now();
    let stale = Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(Column::ExpiresAt.lte(now))
        .limit(limit)
        .into_query();
    db.write(move |transaction| {
        Box::pin(async move {
            let deleted = Entity::delete_many()
                .filter(Column::Id.in_subquery(stale))
                .exec(transaction)
                .await?;
            Ok(deleted.rows_affected)
        })
    })
    .await
}

fn owned_by(lock: &IdempotencyLock) -> UpdateMany<Entity> {
    Entity::update_many()
        .filter(Column::Id.eq(&lock.id))
        .filter(Column::Status.is_null())
        .filter(Column::Fingerprint.eq(lock.lock()))
}

impl IdempotencyLock {
    /// The content of `fingerprint` while the lock is held.
    fn lock(&self) -> String {
        self.holder.simple().to_string()
    }
}

/// Keys of different owners never collide, and no client can construct another owner's key.
fn row_id(owner: Option<&str>, key: &str) -> String {
    let owner = owner.map_or_else(String::new, |owner| format!("{}:{owner}", owner.len()));
    Sha256Digest::compute(format!("{owner}\n{key}").as_bytes()).to_string()
}
