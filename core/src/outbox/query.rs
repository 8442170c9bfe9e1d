//! Reading events and deliveries: pages of lists, single events with all details, and counts for dashboards.

use crate::{
    db::Database,
    filtered_scan::KeysetScan,
    pagination::{Page, PageRequest, first_id_at},
};
use entity::{
    DeliveryId, EventId, Timestamp, WebhookId, attempt,
    delivery::{self, DeliveryStatus},
    outbox_event::{self, EventStatus},
};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect, QueryTrait, Select,
    sea_query::{Expr, Query},
};
use std::collections::HashMap;
use uuid::Uuid;

/// Maximum number of deliveries returned for an event, the newest.
pub const DELIVERIES_SHOWN: u64 = 1000;

/// Maximum number of attempts read per response, the newest.
pub const ATTEMPTS_SHOWN: u64 = 1000;

/// Counting stops here, so that a count has a bounded cost however long the backlog is.
pub const COUNT_LIMIT: u64 = 100_000;

/// The filters of an event list.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    pub status: Option<EventStatus>,
    /// An exact match; an unknown type matches nothing.
    pub event_type: Option<String>,
    /// The file, batch or endpoint the event is about.
    pub aggregate_id: Option<Uuid>,
    /// Only events written at or after this time …
    pub since: Option<Timestamp>,
    /// … and before this time.
    pub until: Option<Timestamp>,
}

/// A delivery and its attempts, oldest first.
#[derive(Clone, Debug, PartialEq)]
pub struct DeliveryDetail {
    pub delivery: delivery::Model,
    pub attempts: Vec<attempt::Model>,
}

/// An event with its deliveries.
#[derive(Clone, Debug, PartialEq)]
pub struct EventDetail {
    pub event: outbox_event::Model,
    /// Oldest first.
    pub deliveries: Vec<DeliveryDetail>,
}

/// Counts of pending and failed deliveries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveryCounts {
    /// At most [`COUNT_LIMIT`].
    pub pending: u64,
    /// At most [`COUNT_LIMIT`].
    pub failed: u64,
    /// Since when the oldest pending delivery has been waiting.
    pub oldest_pending_since: Option<Timestamp>,
}

/// Returns a page of events, newest first. With several filters it may be short or even empty and still have a next
/// page.
///
/// # Errors
/// Database errors.
pub async fn list(
    db: &Database,
    filter: EventFilter,
    page: PageRequest,
) -> Result<Page<outbox_event::Model>, DbErr> {
    use outbox_event::Column;
    // The most selective condition leads.
    let delivered = filter.status == Some(EventStatus::Delivered);
    let status = filter.status.map(|status| Column::Status.eq(status));
    let event_type = filter.event_type.map(|name| Column::EventType.eq(name));
    let about = filter.aggregate_id.map(|id| Column::AggregateId.eq(id));
    let by_size = if delivered {
        [about, event_type, status]
    } else {
        [about, status, event_type]
    };
    let mut conditions = by_size.into_iter().flatten();
    let walk = KeysetScan::<outbox_event::Entity> {
        id: Column::Id,
        lead: Condition::all().add_option(conditions.next()),
        rest: conditions.fold(Condition::all(), Condition::add),
        from: filter.since.map(first_id_at),
        until: filter.until.map(first_id_at),
    };
    walk.page(db.read(), page, |row| row.id.0).await
}

/// Returns the event with its deliveries and their attempts, if it exists.
///
/// # Errors
/// Database errors.
pub async fn get(db: &Database, id: EventId) -> Result<Option<EventDetail>, DbErr> {
    let Some(event) = outbox_event::Entity::find_by_id(id).one(db.read()).await? else {
        return Ok(None);
    };
    let mut rows = delivery::Entity::find()
        .filter(delivery::Column::EventId.eq(id))
        .order_by_desc(delivery::Column::Id)
        .limit(DELIVERIES_SHOWN)
        .all(db.read())
        .await?;
    rows.reverse();
    Ok(Some(EventDetail {
        event,
        deliveries: with_attempts(db.read(), rows).await?,
    }))
}

/// Returns a page of deliveries to one endpoint, newest first, with their attempts.
///
/// # Errors
/// Database errors.
pub async fn deliveries(
    db: &Database,
    webhook: WebhookId,
    status: Option<DeliveryStatus>,
    page: PageRequest,
) -> Result<Page<DeliveryDetail>, DbErr> {
    let mut select = delivery::Entity::find()
        .filter(delivery::Column::WebhookId.eq(webhook))
        .order_by_desc(delivery::Column::Id)
        .limit(page.limit + 1);
    if let Some(status) = status {
        select = select.filter(delivery::Column::Status.eq(status));
    }
    if let Some(before) = page.before {
        select = select.filter(delivery::Column::Id.lt(before));
    }
    let rows = Page::cut(select.all(db.read()).await?, page, |row| row.id.0);
    let items = with_attempts(db.read(), rows.items).await?;
    Ok(Page {
        items,
        next_cursor: rows.next_cursor,
    })
}

/// Returns the deliveries of several events, without attempts, oldest first: for a page of a list.
///
/// # Errors
/// Database errors.
pub async fn event_deliveries(
    db: &Database,
    events: &[EventId],
) -> Result<HashMap<EventId, Vec<delivery::Model>>, DbErr> {
    let rows = delivery::Entity::find()
        .filter(delivery::Column::EventId.is_in(events.iter().copied()))
        .order_by_asc(delivery::Column::Id)
        .all(db.read())
        .await?;
    let mut found: HashMap<EventId, Vec<delivery::Model>> = HashMap::new();
    for row in rows {
        found.entry(row.event_id).or_default().push(row);
    }
    Ok(found)
}

/// Counts the deliveries of all events.
///
/// # Errors
/// Database errors.
pub async fn counts(db: &Database) -> Result<DeliveryCounts, DbErr> {
    let of = |status| outbox_event::Entity::find().filter(outbox_event::Column::Status.eq(status));
    Ok(DeliveryCounts {
        pending: count(db.read(), of(EventStatus::Pending)).await?,
        failed: count(db.read(), of(EventStatus::Failed)).await?,
        oldest_pending_since: of(EventStatus::Pending)
            .select_only()
            .column(outbox_event::Column::CreatedAt)
            .order_by_asc(outbox_event::Column::Id)
            .limit(1)
            .into_tuple()
            .one(db.read())
            .await?,
    })
}

/// Counts the deliveries to one endpoint.
///
/// # Errors
/// Database errors.
pub async fn endpoint_counts(db: &Database, webhook: WebhookId) -> Result<DeliveryCounts, DbErr> {
    let of = |status| {
        delivery::Entity::find()
            .filter(delivery::Column::WebhookId.eq(webhook))
            .filter(delivery::Column::Status.eq(status))
    };
    Ok(DeliveryCounts {
        pending: count(db.read(), of(DeliveryStatus::Pending)).await?,
        failed: count(db.read(), of(DeliveryStatus::Failed)).await?,
        oldest_pending_since: of(DeliveryStatus::Pending)
            .select_only()
            .column(delivery::Column::CreatedAt)
            .order_by_asc(delivery::Column::Id)
            .limit(1)
            .into_tuple()
            .one(db.read())
            .await?,
    })
}

async fn count<E: EntityTrait>(
    connection: &impl ConnectionTrait,
    select: Select<E>,
) -> Result<u64, DbErr> {
    let rows = select
        .select_only()
        .expr_as(Expr::val(1), "one")
        .limit(COUNT_LIMIT)
        .into_query();
    let counting = Query::select()
        .expr_as(Expr::cust("COUNT(*)"), "rows")
        .from_subquery(rows, "counted")
        .to_owned();
    let row = connection.query_one(&counting).await?;
    let rows: i64 = row.map_or(Ok(0), |row| row.try_get("", "rows"))?;
    Ok(u64::try_from(rows).unwrap_or(0))
}

async fn with_attempts(
    connection: &impl ConnectionTrait,
    rows: Vec<delivery::Model>,
) -> Result<Vec<DeliveryDetail>, DbErr> {
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut attempts: HashMap<DeliveryId, Vec<attempt::Model>> = HashMap::new();
    let newest = attempt::Entity::find()
        .filter(attempt::Column::DeliveryId.is_in(rows.iter().map(|row| row.id)))
        .order_by_desc(attempt::Column::Id)
        .limit(ATTEMPTS_SHOWN)
        .all(connection)
        .await?;
    for attempt in newest.into_iter().rev() {
        attempts
            .entry(attempt.delivery_id)
            .or_default()
            .push(attempt);
    }
    Ok(rows
        .into_iter()
        .map(|delivery| DeliveryDetail {
            attempts: attempts.remove(&delivery.id).unwrap_or_default(),
            delivery,
        })
        .collect())
}
