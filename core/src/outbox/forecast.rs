//! How many deliveries a replay will make due: told before it is begun.

use super::{
    Replay, Subscription,
    again::{is_spread, written_within},
};
use crate::db::Database;
use entity::{
    EventId, Timestamp, WebhookId,
    delivery::{self, DeliveryStatus},
};
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter, QuerySelect};
use std::collections::HashMap;

/// Events looked at before the count says only that it is at least so many.
pub const FORECAST_LIMIT: u64 = 10_000;

/// Events in one query: SQLite binds at most 32,766 values (SQLite, «Limits»).
const PAGE: usize = 5_000;

/// What a replay would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forecast {
    /// Deliveries that would become due.
    pub count: u64,
    /// True when there are more events than [`FORECAST_LIMIT`], of which the oldest were counted.
    pub at_least: bool,
}

/// Counts what [`super::replay`] would make due at this moment. An endpoint that is switched off or gone: nothing.
///
/// # Errors
/// The database's.
pub async fn forecast(
    db: &Database,
    webhook: WebhookId,
    replay: Replay,
) -> Result<Forecast, DbErr> {
    let active = Subscription::all(db.read()).await?;
    let Some(endpoint) = active.into_iter().find(|one| one.webhook_id == webhook) else {
        return Ok(Forecast::default());
    };
    let events: Vec<(EventId, String, Timestamp)> = written_within(replay)
        .limit(FORECAST_LIMIT + 1)
        .into_tuple()
        .all(db.read())
        .await?;
    let at_least = events.len() as u64 > FORECAST_LIMIT;
    let mut count = 0;
    for some in events.chunks(PAGE) {
        let known = statuses(db, webhook, some.iter().map(|(id, ..)| *id)).await?;
        let due = some
            .iter()
            .filter(|(id, event_type, _)| match known.get(id) {
                Some(DeliveryStatus::Pending) => false,
                Some(status) => replay.status.is_none_or(|wanted| wanted == *status),
                None => {
                    replay.status.is_none() && is_spread(event_type) && endpoint.wants(event_type)
                }
            });
        count += due.count() as u64;
    }
    Ok(Forecast { count, at_least })
}

async fn statuses(
    db: &Database,
    webhook: WebhookId,
    events: impl Iterator<Item = EventId>,
) -> Result<HashMap<EventId, DeliveryStatus>, DbErr> {
    let rows: Vec<(EventId, DeliveryStatus)> = delivery::Entity::find()
        .select_only()
        .column(delivery::Column::EventId)
        .column(delivery::Column::Status)
        .filter(delivery::Column::EventId.is_in(events))
        .filter(delivery::Column::WebhookId.eq(webhook))
        .into_tuple()
        .all(db.read())
        .await?;
    Ok(rows.into_iter().collect())
}
