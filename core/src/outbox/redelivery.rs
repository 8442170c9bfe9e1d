//! Redelivery of one event, and replay of many.
//!
//! Deliveries that were delivered or have failed become pending again, with a new round of attempts; an endpoint that
//! subscribes to an event but never got it gets a new delivery. The receiver sees the same `webhook-id` as before.

use super::{
    EventType, Subscription,
    counters::{self, CounterChange, CounterChanges},
    write::add_deliveries,
};
use crate::{
    clock::Clock,
    db::Database,
    enqueue::{DueDelivery, JobSink},
};
use entity::{
    DeliveryId, EventId, Timestamp, WebhookId,
    delivery::{self, DeliveryStatus},
    outbox_event,
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Select,
    sea_query::{Expr, ExprTrait, LockType},
};
use std::collections::{HashMap, HashSet};

/// Events, or deliveries, that a replay processes in one transaction.
const PAGE: u64 = 500;

/// Where a page of a replay ended.
#[derive(Clone, Copy, Debug)]
enum ReplayCursor {
    /// Events are processed in the order they were written.
    Event(Timestamp, EventId),
    /// Failed deliveries are processed in the order of their ids, since they are few among all.
    Delivery(DeliveryId),
}

/// Why nothing was made due.
#[derive(Debug, thiserror::Error)]
pub enum RedeliveryError {
    #[error("there is no such event")]
    NoSuchEvent,
    #[error("there is no such active webhook endpoint")]
    NoSuchEndpoint,
    #[error("the endpoint does not subscribe to events of this type")]
    NotSubscribed,
    #[error("making deliveries due failed in the database")]
    Database(#[from] DbErr),
}

/// The range of events to replay.
#[derive(Clone, Copy, Debug)]
pub struct ReplayRequest {
    /// Events written at or after this time …
    pub since: Timestamp,
    /// … and before this time.
    pub until: Option<Timestamp>,
    /// Only events whose delivery is `delivered`, or `failed`; `None` means both, and events that were never announced
    /// to the endpoint. Pending deliveries are in progress already.
    pub status: Option<DeliveryStatus>,
}

/// Makes the deliveries of an event due now: only those to the endpoint `only`, or to all endpoints that have or want
/// one. Deliveries to deleted or disabled endpoints are unchanged, as are those being attempted; those waiting for a
/// retry become due at once. Returns the updated event, and what the caller must push.
///
/// # Errors
/// [`RedeliveryError`]; nothing is changed then.
pub async fn redeliver(
    db: &Database,
    clock: &Clock,
    event: EventId,
    only: Option<WebhookId>,
) -> Result<(outbox_event::Model, Vec<DueDelivery>), RedeliveryError> {
    let now = clock.now();
    db.write(move |transaction| Box::pin(redeliver_one(transaction, now, event, only)))
        .await
}

async fn redeliver_one(
    transaction: &impl ConnectionTrait,
    now: Timestamp,
    id: EventId,
    only: Option<WebhookId>,
) -> Result<(outbox_event::Model, Vec<DueDelivery>), RedeliveryError> {
    counters::lock(transaction, [id]).await?;
    let event = find_event(transaction, id).await?;
    let mut active = Subscription::all(transaction).await?;
    if let Some(only) = only {
        active.retain(|one| one.webhook_id == only);
        if active.is_empty() {
            return Err(RedeliveryError::NoSuchEndpoint);
        }
    }
    let targets = active.iter().map(|one| one.webhook_id).collect();
    let rows = lock_deliveries(transaction, &[id], targets).await?;
    let has: HashSet<WebhookId> = rows.iter().map(|row| row.webhook_id).collect();
    let missing: Vec<WebhookId> = active
        .iter()
        .filter(|one| !has.contains(&one.webhook_id))
        .filter(|one| goes_to_all_endpoints(&event.event_type) && one.wants(&event.event_type))
        .map(|one| one.webhook_id)
        .collect();
    if only.is_some() && rows.is_empty() && missing.is_empty() {
        return Err(RedeliveryError::NotSubscribed);
    }
    let ready = rows
        .into_iter()
        .filter(|row| !is_leased(row, now))
        .collect();
    let due = make_due(transaction, now, ready, vec![(id, missing)]).await?;
    Ok((find_event(transaction, id).await?, due))
}

async fn find_event(
    transaction: &impl ConnectionTrait,
    id: EventId,
) -> Result<outbox_event::Model, RedeliveryError> {
    outbox_event::Entity::find_by_id(id)
        .one(transaction)
        .await?
        .ok_or(RedeliveryError::NoSuchEvent)
}

/// Whether events of this type go to all endpoints; a test goes only to the endpoint it was requested for.
pub(super) fn goes_to_all_endpoints(event_type: &str) -> bool {
    event_type != EventType::WebhookTest.as_str()
}

fn is_leased(row: &delivery::Model, now: Timestamp) -> bool {
    row.status == DeliveryStatus::Pending && row.lease_expires_at.is_some_and(|end| end >= now)
}

/// Announces events to one endpoint again, delivered, failed or never announced, in pages of 500 events, each committed
/// and pushed before the next. Returns how many deliveries became due. An interrupted replay can be started again.
///
/// # Errors
/// [`RedeliveryError`]; completed pages remain.
pub async fn replay(
    db: &Database,
    clock: &Clock,
    dispatch: &dyn JobSink,
    webhook: WebhookId,
    replay: ReplayRequest,
) -> Result<u64, RedeliveryError> {
    // Events written from now on are announced anyway; without this bound the replay of a busy outbox would never end.
    let until = replay
        .until
        .unwrap_or_else(|| clock.after(std::time::Duration::from_micros(1)));
    let replay = ReplayRequest {
        until: Some(until),
        ..replay
    };
    let mut count = 0;
    let mut after = None;
    loop {
        let now = clock.now();
        let (due, last) = db
            .write(move |transaction| {
                Box::pin(replay_page(transaction, now, webhook, replay, after))
            })
            .await?;
        count += u64::try_from(due.len()).unwrap_or(u64::MAX);
        if !due.is_empty() {
            dispatch.deliver(&due).await;
        }
        match last {
            Some(last) => after = Some(last),
            None => return Ok(count),
        }
    }
}

/// Returns the deliveries that became due, and where the page ended unless it is the last.
async fn replay_page(
    transaction: &impl ConnectionTrait,
    now: Timestamp,
    webhook: WebhookId,
    replay: ReplayRequest,
    after: Option<ReplayCursor>,
) -> Result<(Vec<DueDelivery>, Option<ReplayCursor>), RedeliveryError> {
    let endpoint = Subscription::all(transaction)
        .await?
        .into_iter()
        .find(|one| one.webhook_id == webhook)
        .ok_or(RedeliveryError::NoSuchEndpoint)?;
    let (events, last) = match replay.status {
        Some(DeliveryStatus::Pending) => return Ok((Vec::new(), None)),
        Some(DeliveryStatus::Failed) => failed_page(transaction, webhook, replay, after).await?,
        Some(DeliveryStatus::Delivered) | None => event_page(transaction, replay, after).await?,
    };
    let ids = counters::lock(transaction, events.iter().map(|(id, ..)| *id)).await?;
    let there: HashSet<EventId> = ids.iter().copied().collect();
    let rows = lock_deliveries(transaction, &ids, vec![webhook]).await?;
    let has: HashSet<EventId> = rows.iter().map(|row| row.event_id).collect();
    let missing = events
        .into_iter()
        .filter(|(id, ..)| replay.status.is_none() && there.contains(id) && !has.contains(id))
        .filter(|(_, event_type, _)| {
            goes_to_all_endpoints(event_type) && endpoint.wants(event_type)
        })
        .map(|(id, ..)| (id, vec![webhook]))
        .collect();
    let ready = rows
        .into_iter()
        .filter(|row| row.status != DeliveryStatus::Pending)
        .filter(|row| replay.status.is_none_or(|status| row.status == status))
        .collect();
    Ok((make_due(transaction, now, ready, missing).await?, last))
}

type EventRow = (EventId, String, Timestamp);

async fn event_page(
    transaction: &impl ConnectionTrait,
    replay: ReplayRequest,
    after: Option<ReplayCursor>,
) -> Result<(Vec<EventRow>, Option<ReplayCursor>), DbErr> {
    let mut select = written_within(replay).limit(PAGE);
    if let Some(ReplayCursor::Event(at, id)) = after {
        let columns = [outbox_event::Column::CreatedAt, outbox_event::Column::Id];
        let place = columns.map(|column| Expr::col((outbox_event::Entity, column)));
        select = select.filter(Expr::tuple(place).gt(Expr::tuple([Expr::val(at), Expr::val(id)])));
    }
    let events: Vec<EventRow> = select.into_tuple().all(transaction).await?;
    let last = events
        .last()
        .map(|(id, _, at)| ReplayCursor::Event(*at, *id));
    let last = last.filter(|_| is_full(events.len()));
    Ok((events, last))
}

/// Returns the events of one page of failed deliveries, as far as they are within the replay's range. Scans the index
/// of the endpoint's failed deliveries once, however many others it has.
async fn failed_page(
    transaction: &impl ConnectionTrait,
    webhook: WebhookId,
    replay: ReplayRequest,
    after: Option<ReplayCursor>,
) -> Result<(Vec<EventRow>, Option<ReplayCursor>), DbErr> {
    let mut select = delivery::Entity::find()
        .select_only()
        .column(delivery::Column::Id)
        .column(delivery::Column::EventId)
        .filter(delivery::Column::WebhookId.eq(webhook))
        .filter(delivery::Column::Status.eq(DeliveryStatus::Failed))
        .order_by_asc(delivery::Column::Id)
        .limit(PAGE);
    if let Some(ReplayCursor::Delivery(id)) = after {
        select = select.filter(delivery::Column::Id.gt(id));
    }
    let failed: Vec<(DeliveryId, EventId)> = select.into_tuple().all(transaction).await?;
    let last = failed.last().map(|(id, _)| ReplayCursor::Delivery(*id));
    let last = last.filter(|_| is_full(failed.len()));
    let events = written_within(replay)
        .filter(outbox_event::Column::Id.is_in(failed.into_iter().map(|(_, event)| event)))
        .into_tuple()
        .all(transaction)
        .await?;
    Ok((events, last))
}

fn is_full(rows: usize) -> bool {
    u64::try_from(rows).unwrap_or(u64::MAX) >= PAGE
}

/// The events of a replay, in the order they were written.
pub(super) fn written_within(replay: ReplayRequest) -> Select<outbox_event::Entity> {
    let select = outbox_event::Entity::find()
        .select_only()
        .column(outbox_event::Column::Id)
        .column(outbox_event::Column::EventType)
        .column(outbox_event::Column::CreatedAt)
        .filter(outbox_event::Column::CreatedAt.gte(replay.since))
        .order_by_asc(outbox_event::Column::CreatedAt)
        .order_by_asc(outbox_event::Column::Id);
    match replay.until {
        Some(until) => select.filter(outbox_event::Column::CreatedAt.lt(until)),
        None => select,
    }
}

async fn lock_deliveries(
    transaction: &impl ConnectionTrait,
    events: &[EventId],
    webhooks: Vec<WebhookId>,
) -> Result<Vec<delivery::Model>, DbErr> {
    delivery::Entity::find()
        .filter(delivery::Column::EventId.is_in(events.iter().copied()))
        .filter(delivery::Column::WebhookId.is_in(webhooks))
        .order_by_asc(delivery::Column::Id)
        .lock(LockType::NoKeyUpdate)
        .all(transaction)
        .await
}

/// Makes locked deliveries pending and due, adds missing ones, and updates the counters of their events, which must be
/// locked too.
async fn make_due(
    transaction: &impl ConnectionTrait,
    now: Timestamp,
    rows: Vec<delivery::Model>,
    missing: Vec<(EventId, Vec<WebhookId>)>,
) -> Result<Vec<DueDelivery>, DbErr> {
    let mut changes = CounterChanges::default();
    let mut by_status: HashMap<DeliveryStatus, Vec<DeliveryId>> = HashMap::new();
    for row in &rows {
        by_status.entry(row.status).or_default().push(row.id);
        changes.add(row.event_id, counter_change_from(row.status));
    }
    for (status, ids) in by_status {
        delivery::Entity::update_many()
            .col_expr(delivery::Column::Status, Expr::val(DeliveryStatus::Pending))
            .col_expr(delivery::Column::AttemptsThisRound, Expr::val(0))
            .col_expr(delivery::Column::NextAttemptAt, Expr::val(now))
            .col_expr(delivery::Column::DeliveredAt, Expr::val(None::<Timestamp>))
            .col_expr(delivery::Column::LeaseOwner, Expr::val(None::<String>))
            .col_expr(
                delivery::Column::LeaseExpiresAt,
                Expr::val(None::<Timestamp>),
            )
            .col_expr(delivery::Column::UpdatedAt, Expr::val(now))
            .filter(delivery::Column::Id.is_in(ids))
            .filter(delivery::Column::Status.eq(status))
            .exec(transaction)
            .await?;
    }
    for (event, webhooks) in &missing {
        let pending = i32::try_from(webhooks.len()).unwrap_or(i32::MAX);
        changes.add(*event, CounterChange { pending, failed: 0 });
    }
    let added = add_deliveries(transaction, now, &missing).await?;
    changes.apply(transaction, now).await?;
    Ok(rows
        .into_iter()
        .map(|row| DueDelivery {
            id: row.id,
            webhook_id: row.webhook_id,
            at: None,
        })
        .chain(added)
        .collect())
}

fn counter_change_from(status: DeliveryStatus) -> CounterChange {
    match status {
        DeliveryStatus::Pending => CounterChange::default(),
        DeliveryStatus::Delivered => CounterChange {
            pending: 1,
            failed: 0,
        },
        DeliveryStatus::Failed => CounterChange {
            pending: 1,
            failed: -1,
        },
    }
}
