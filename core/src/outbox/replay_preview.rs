//! How many deliveries a replay would make due, for the page that asks for confirmation.

use super::{
    ReplayRequest, Subscription,
    redelivery::{goes_to_all_endpoints, written_within},
};
use crate::db::Database;
use entity::{
    EventId, WebhookId,
    delivery::{self, DeliveryStatus},
    outbox_event,
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, QuerySelect, QueryTrait,
    sea_query::{Expr, ExprTrait, Query, SubQueryStatement},
};

/// Maximum number of events examined; beyond it, the count is a lower bound.
pub const REPLAY_PREVIEW_LIMIT: u64 = 5_000;

/// The expected effect of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayPreview {
    /// Number of deliveries that would become due.
    pub count: u64,
    /// Whether there are more events than [`REPLAY_PREVIEW_LIMIT`]; then only the oldest were counted.
    pub at_least: bool,
}

/// Counts the deliveries that [`super::replay`] would make due now. A disabled or deleted endpoint has none.
///
/// # Errors
/// Database errors.
pub async fn preview_replay(
    db: &Database,
    webhook: WebhookId,
    replay: ReplayRequest,
) -> Result<ReplayPreview, DbErr> {
    let active = Subscription::all(db.read()).await?;
    let Some(endpoint) = active.into_iter().find(|one| one.webhook_id == webhook) else {
        return Ok(ReplayPreview::default());
    };
    let due = |status: Option<DeliveryStatus>, event_type: &str| match status {
        Some(DeliveryStatus::Pending) => false,
        Some(status) => replay.status.is_none_or(|wanted| wanted == status),
        None => {
            replay.status.is_none()
                && goes_to_all_endpoints(event_type)
                && endpoint.wants(event_type)
        }
    };
    let mut count = 0;
    for (status, event_type, events) in kinds(db, webhook, replay).await? {
        if due(status, &event_type) {
            count += events;
        }
    }
    let beyond = written_within(replay)
        .select_only()
        .column(outbox_event::Column::Id)
        .offset(REPLAY_PREVIEW_LIMIT)
        .limit(1);
    let beyond: Option<EventId> = beyond.into_tuple().one(db.read()).await?;
    Ok(ReplayPreview {
        count,
        at_least: beyond.is_some(),
    })
}

/// Groups the oldest events of a replay by type and by the status of their delivery to the endpoint. Each delivery is
/// looked up individually, because with a join the database might read all of them.
async fn kinds(
    db: &Database,
    webhook: WebhookId,
    replay: ReplayRequest,
) -> Result<Vec<(Option<DeliveryStatus>, String, u64)>, DbErr> {
    let delivery = Query::select()
        .column((delivery::Entity, delivery::Column::Status))
        .from(delivery::Entity)
        .and_where(
            Expr::col((delivery::Entity, delivery::Column::EventId))
                .equals((outbox_event::Entity, outbox_event::Column::Id)),
        )
        .and_where(delivery::Column::WebhookId.eq(webhook))
        .to_owned();
    let written = written_within(replay)
        .select_only()
        .column(outbox_event::Column::EventType)
        .expr_as(Expr::from(SubQueryStatement::from(delivery)), "status")
        .limit(REPLAY_PREVIEW_LIMIT)
        .into_query();
    let counting = Query::select()
        .columns(["status", "event_type"])
        .expr_as(Expr::cust("COUNT(*)"), "events")
        .from_subquery(written, "written")
        .group_by_columns(["status", "event_type"])
        .to_owned();
    let rows = db.read().query_all(&counting).await?;
    rows.iter()
        .map(|row| {
            let events: i64 = row.try_get("", "events")?;
            let events = u64::try_from(events).unwrap_or(0);
            Ok((
                row.try_get("", "status")?,
                row.try_get("", "event_type")?,
                events,
            ))
        })
        .collect()
}
