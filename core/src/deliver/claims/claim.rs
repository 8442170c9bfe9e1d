//! Claiming deliveries: one compare-and-set per batch.

use crate::{batcher::Batch, clock::Clock, db::Database};
use entity::{
    DeliveryId, EventId, Timestamp, WebhookId,
    delivery::{self, DeliveryStatus},
    outbox_event, webhook_endpoint,
};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect, QueryTrait,
    sea_query::{Expr, LockBehavior, LockType},
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};
use uuid::Uuid;

/// Retry delay for a delivery whose row another process has locked.
const BUSY_RETRY_DELAY: Duration = Duration::from_secs(1);

/// The outcome of a claim.
#[derive(Clone, Debug)]
pub(crate) enum DeliveryClaim {
    /// The caller holds the delivery until the lease expires.
    Claimed(Box<ClaimedDelivery>),
    /// Not due, or leased by another worker, until then.
    Later(Timestamp),
    /// Delivered, failed or deleted: there is nothing to do.
    Nothing,
}

/// A delivery under a lease, and what is needed to attempt it.
#[derive(Clone, Debug)]
pub(crate) struct ClaimedDelivery {
    pub(crate) delivery: delivery::Model,
    pub(crate) lease_owner: String,
    pub(crate) event: Arc<outbox_event::Model>,
    /// As of the claim; `None` if the endpoint was deleted.
    pub(crate) endpoint: Option<Arc<webhook_endpoint::Model>>,
}

pub(super) async fn claim(
    db: Database,
    clock: Clock,
    worker: Arc<str>,
    lease: Duration,
    requested: Batch<DeliveryId>,
) -> Result<Vec<DeliveryClaim>, DbErr> {
    let mut ids: Vec<DeliveryId> = requested.iter().map(|id| **id).collect();
    ids.sort_unstable();
    ids.dedup();
    let terms = DeliveryLease {
        now: clock.now(),
        // Unique to this batch: a worker that claims the same delivery again is a different owner.
        owner: format!("{worker}/{}", Uuid::now_v7()),
        expires_at: clock.after(lease),
    };
    let mut claims: HashMap<DeliveryId, DeliveryClaim> = db
        .write_repeatable(move |transaction| {
            Box::pin(acquire_leases(transaction, terms.clone(), ids.clone()))
        })
        .await?;
    // If a delivery is requested twice in one batch, the first request gets it and the other is told that it is leased.
    let taken_until = clock.after(lease);
    Ok(requested
        .iter()
        .map(|id| {
            let answer = claims.remove(id);
            if matches!(answer, Some(DeliveryClaim::Claimed(_))) {
                claims.insert(**id, DeliveryClaim::Later(taken_until));
            } else if let Some(again) = &answer {
                claims.insert(**id, again.clone());
            }
            answer.unwrap_or(DeliveryClaim::Nothing)
        })
        .collect())
}

#[derive(Clone, Debug)]
struct DeliveryLease {
    now: Timestamp,
    owner: String,
    expires_at: Timestamp,
}

async fn acquire_leases(
    transaction: &impl ConnectionTrait,
    terms: DeliveryLease,
    ids: Vec<DeliveryId>,
) -> Result<HashMap<DeliveryId, DeliveryClaim>, DbErr> {
    // Locked rows are skipped rather than waited for, because the holder of the lock is about to change them.
    let free = delivery::Entity::find()
        .select_only()
        .column(delivery::Column::Id)
        .filter(delivery::Column::Id.is_in(ids.iter().copied()))
        .filter(claimable(terms.now))
        .order_by_asc(delivery::Column::Id)
        .lock_with_behavior(LockType::NoKeyUpdate, LockBehavior::SkipLocked)
        .into_query();
    let taken = delivery::Entity::update_many()
        .col_expr(delivery::Column::LeaseOwner, Expr::val(terms.owner.clone()))
        .col_expr(
            delivery::Column::LeaseExpiresAt,
            Expr::val(terms.expires_at),
        )
        .col_expr(delivery::Column::UpdatedAt, Expr::val(terms.now))
        .filter(delivery::Column::Id.in_subquery(free))
        .filter(claimable(terms.now))
        .exec_with_returning(transaction)
        .await?;
    let mut claims = HashMap::with_capacity(ids.len());
    if taken.len() < ids.len() {
        let got: HashSet<DeliveryId> = taken.iter().map(|row| row.id).collect();
        let missed = ids.into_iter().filter(|id| !got.contains(id)).collect();
        explain_unclaimed(transaction, terms.now, missed, &mut claims).await?;
    }
    if taken.is_empty() {
        return Ok(claims);
    }
    let events = events(transaction, &taken).await?;
    let endpoints = endpoints(transaction, &taken).await?;
    for row in taken {
        let Some(event) = events.get(&row.event_id) else {
            // The event and its deliveries were deleted between the two statements: there is nothing to announce.
            continue;
        };
        let claimed = ClaimedDelivery {
            lease_owner: terms.owner.clone(),
            event: Arc::clone(event),
            endpoint: endpoints.get(&row.webhook_id).cloned(),
            delivery: row,
        };
        claims.insert(
            claimed.delivery.id,
            DeliveryClaim::Claimed(Box::new(claimed)),
        );
    }
    Ok(claims)
}

/// Pending, due, and not leased.
pub(in crate::deliver) fn claimable(now: Timestamp) -> Condition {
    Condition::all()
        .add(delivery::Column::Status.eq(DeliveryStatus::Pending))
        .add(delivery::Column::NextAttemptAt.lte(now))
        .add(unleased(now))
}

/// Not leased, or under an expired lease.
pub(in crate::deliver) fn unleased(now: Timestamp) -> Condition {
    Condition::any()
        .add(delivery::Column::LeaseExpiresAt.is_null())
        .add(delivery::Column::LeaseExpiresAt.lt(now))
}

/// Explains why deliveries could not be claimed.
async fn explain_unclaimed(
    transaction: &impl ConnectionTrait,
    now: Timestamp,
    missed: Vec<DeliveryId>,
    claims: &mut HashMap<DeliveryId, DeliveryClaim>,
) -> Result<(), DbErr> {
    let rows = delivery::Entity::find()
        .filter(delivery::Column::Id.is_in(missed))
        .all(transaction)
        .await?;
    for row in rows {
        if row.status != DeliveryStatus::Pending {
            continue;
        }
        let due = row.next_attempt_at.filter(|at| *at > now);
        let leased = row.lease_expires_at.filter(|at| *at >= now);
        claims.insert(
            row.id,
            DeliveryClaim::Later(leased.or(due).unwrap_or(now + BUSY_RETRY_DELAY)),
        );
    }
    Ok(())
}

async fn events(
    transaction: &impl ConnectionTrait,
    taken: &[delivery::Model],
) -> Result<HashMap<EventId, Arc<outbox_event::Model>>, DbErr> {
    let ids: HashSet<EventId> = taken.iter().map(|row| row.event_id).collect();
    let rows = outbox_event::Entity::find()
        .filter(outbox_event::Column::Id.is_in(ids))
        .all(transaction)
        .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.id, Arc::new(row)))
        .collect())
}

async fn endpoints(
    transaction: &impl ConnectionTrait,
    taken: &[delivery::Model],
) -> Result<HashMap<WebhookId, Arc<webhook_endpoint::Model>>, DbErr> {
    let ids: HashSet<WebhookId> = taken.iter().map(|row| row.webhook_id).collect();
    let rows = webhook_endpoint::Entity::find()
        .filter(webhook_endpoint::Column::Id.is_in(ids))
        .all(transaction)
        .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.id, Arc::new(row)))
        .collect())
}
