//! Reservations of quota for bytes in transit: made before the bytes are staged, released when they are counted or
//! given up.

use super::{QuotaError, lock_and_change, require_within};
use crate::{
    app::App,
    clock::Clock,
    config::ByteSize,
    db::{self, Database},
};
use bytes::Bytes;
use entity::{
    Timestamp,
    owner_reservation::{Column, Entity, Model},
};
use futures::{Stream, StreamExt};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, IntoActiveModel, QueryFilter, QuerySelect,
    sea_query::{CaseStatement, Expr, ExprTrait, OnConflict},
};
use std::{error::Error, sync::Arc, time::Duration};
use tokio::sync::Mutex;
use uuid::Uuid;

/// The first reservation, and the maximum reserved ahead of the received bytes: small files take one reservation, large
/// ones few.
const FIRST_RESERVATION: u64 = 64 * 1024;
const MAX_AHEAD: u64 = 8 * 1024 * 1024;

/// How long a reservation outlives a dead process. Received bytes renew it, and a body that pauses for longer than
/// `server.idle_timeout` is aborted.
const LEASE: Duration = Duration::from_secs(15 * 60);

/// Received bytes renew a reservation of this age.
const RENEW_AFTER: Duration = Duration::from_secs(5 * 60);

/// Identifies a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReservationId(Uuid);

/// Quota reserved for the bytes of one request. Whatever was not counted is released on drop.
#[derive(Debug)]
pub struct Reservation {
    db: Database,
    clock: Clock,
    owner: String,
    quota: ByteSize,
    id: ReservationId,
    /// Total number of bytes ever reserved.
    covered: u64,
    /// A row may exist that must be deleted, even if the caller did not wait for it to be written.
    begun: bool,
    renewed_at: Timestamp,
}

impl Reservation {
    /// Returns a reservation for an owner with a quota; others need none. Reserves nothing yet.
    #[must_use]
    pub fn new(app: &App, owner: Option<&str>) -> Option<Self> {
        Some(Self {
            db: app.db.clone(),
            clock: app.clock.clone(),
            owner: owner?.to_owned(),
            quota: app.config.uploads.owner_quota?,
            id: ReservationId(Uuid::now_v7()),
            covered: 0,
            begun: false,
            renewed_at: app.clock.now(),
        })
    }

    /// Reserves exactly `total` bytes, counted from the first, as announced by the client.
    ///
    /// # Errors
    /// [`QuotaError`].
    pub async fn cover_all(&mut self, total: u64) -> Result<(), QuotaError> {
        match total.checked_sub(self.covered) {
            Some(more @ 1..) => self.reserve(more).await,
            _ => Ok(()),
        }
    }

    /// Whether `total` bytes, counted from the first, are reserved and stay so for a while.
    fn covers(&self, total: u64) -> bool {
        total <= self.covered && self.renewed_at + RENEW_AFTER >= self.clock.now()
    }

    /// Reserves `total` bytes, counted from the first, and some more in advance if the quota allows.
    async fn cover(&mut self, total: u64) -> Result<(), QuotaError> {
        if total <= self.covered {
            return self.reserve(0).await;
        }
        let ahead = self.covered.clamp(FIRST_RESERVATION, MAX_AHEAD);
        let needed = total - self.covered;
        match self.reserve(std::cmp::max(needed, ahead)).await {
            Err(QuotaError::Exceeded { .. }) if needed < ahead => self.reserve(needed).await,
            outcome => outcome,
        }
    }

    async fn reserve(&mut self, more: u64) -> Result<(), QuotaError> {
        let (owner, quota, id) = (self.owner.clone(), self.quota, self.id);
        let (now, until) = (self.clock.now(), self.clock.after(LEASE));
        self.begun = true;
        let bytes = i64::try_from(more).unwrap_or(i64::MAX);
        self.db
            .write(move |transaction| {
                Box::pin(async move {
                    lock_and_change(transaction, &owner, 0).await?;
                    forget_expired(transaction, &owner, now).await?;
                    upsert(transaction, &owner, id, bytes, until).await?;
                    require_within(transaction, &owner, quota, now).await
                })
            })
            .await?;
        self.covered += more;
        self.renewed_at = now;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let (db, id) = (self.db.clone(), self.id);
        if !self.begun {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let ended = db.write(move |transaction| {
                    Box::pin(async move { Entity::delete_by_id(id.0).exec(transaction).await })
                });
                if let Err::<_, DbErr>(error) = ended.await {
                    tracing::debug!(%error, "a reservation could not be released, it will expire");
                }
            });
        }
    }
}

/// A reservation shared by the body and the writer that counts its bytes; cheap to clone.
#[derive(Clone, Debug)]
pub struct SharedReservation {
    id: ReservationId,
    shared: Arc<Mutex<Reservation>>,
}

impl SharedReservation {
    /// The id to pass when the bytes are counted. Never waits, even while the body is reserving more.
    #[must_use]
    pub fn id(&self) -> ReservationId {
        self.id
    }

    /// See [`Reservation::cover_all`].
    ///
    /// # Errors
    /// [`QuotaError`].
    pub async fn cover_all(&self, total: u64) -> Result<(), QuotaError> {
        self.shared.lock().await.cover_all(total).await
    }

    /// Keeps the bytes reserved until the lease expires: they may still be on disk, and no row counts them.
    pub async fn leave_to_expire(&self) {
        self.shared.lock().await.begun = false;
    }

    /// Reserves in a task of its own. A writer does not poll its body while it counts the received bytes, and a
    /// suspended body must hold neither the lock nor, on PostgreSQL, an open transaction.
    async fn cover(&self, total: u64) -> Result<(), QuotaError> {
        let mut reservation = Arc::clone(&self.shared).lock_owned().await;
        if reservation.covers(total) {
            return Ok(());
        }
        let covering = tokio::spawn(async move { reservation.cover(total).await });
        covering
            .await
            .unwrap_or_else(|_| Err(QuotaError::Database(db::panicked())))
    }
}

impl From<Reservation> for SharedReservation {
    fn from(reservation: Reservation) -> Self {
        Self {
            id: reservation.id,
            shared: Arc::new(Mutex::new(reservation)),
        }
    }
}

/// Reserves the bytes of a body before passing them on. The stream ends with [`QuotaError`] if there is no room.
pub fn within_quota<S, E>(
    body: S,
    reservation: Option<SharedReservation>,
) -> impl Stream<Item = Result<Bytes, Box<dyn Error + Send + Sync>>> + Send
where
    S: Stream<Item = Result<Bytes, E>> + Send,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let mut total = 0_u64;
    body.then(move |bytes| {
        let reservation = reservation.clone();
        if let Ok(bytes) = &bytes {
            total += bytes.len() as u64;
        }
        let bytes = bytes.map_err(Into::into);
        async move {
            let bytes = bytes?;
            if let Some(reservation) = reservation {
                reservation.cover(total).await?;
            }
            Ok(bytes)
        }
    })
}

/// Reduces the reservation by bytes that are now counted.
pub(super) async fn release(
    transaction: &impl ConnectionTrait,
    id: ReservationId,
    bytes: i64,
) -> Result<(), DbErr> {
    let left = Expr::col(Column::Bytes).sub(bytes);
    let left = CaseStatement::new()
        .case(Expr::col(Column::Bytes).gt(bytes), left)
        .finally(0_i64);
    Entity::update_many()
        .col_expr(Column::Bytes, left.into())
        .filter(Column::Id.eq(id.0))
        .exec(transaction)
        .await
        .map(drop)
}

/// Returns the total number of bytes reserved for an owner.
pub(super) async fn reserved_bytes(
    db: &impl ConnectionTrait,
    owner: &str,
    now: Timestamp,
) -> Result<u64, DbErr> {
    let sum: Option<i64> = Entity::find()
        .select_only()
        .expr_as(
            Expr::cust("CAST(COALESCE(SUM(bytes), 0) AS BIGINT)"),
            "bytes",
        )
        .filter(Column::Owner.eq(owner))
        .filter(Column::ExpiresAt.gt(now))
        .into_tuple()
        .one(db)
        .await?;
    Ok(u64::try_from(sum.unwrap_or(0)).unwrap_or(0))
}

async fn forget_expired(
    transaction: &impl ConnectionTrait,
    owner: &str,
    now: Timestamp,
) -> Result<(), DbErr> {
    Entity::delete_many()
        .filter(Column::Owner.eq(owner))
        .filter(Column::ExpiresAt.lte(now))
        .exec(transaction)
        .await
        .map(drop)
}

async fn upsert(
    transaction: &impl ConnectionTrait,
    owner: &str,
    id: ReservationId,
    bytes: i64,
    until: Timestamp,
) -> Result<(), DbErr> {
    let row = Model {
        id: id.0,
        owner: owner.to_owned(),
        bytes,
        expires_at: until,
    };
    let sum = Expr::col((Entity, Column::Bytes)).add(Expr::cust("excluded.bytes"));
    Entity::insert(row.into_active_model())
        .on_conflict(
            OnConflict::column(Column::Id)
                .value(Column::Bytes, sum)
                .value(Column::ExpiresAt, Expr::cust("excluded.expires_at"))
                .to_owned(),
        )
        .exec_without_returning(transaction)
        .await
        .map(drop)
}
