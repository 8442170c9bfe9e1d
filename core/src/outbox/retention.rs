//! Forgetting events that are long done.

use crate::{clock::Clock, db::Database};
use entity::{
    EventId, Timestamp,
    outbox_event::{self, EventStatus},
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    sea_query::{LockBehavior, LockType},
};
use std::time::Duration;

/// Deletes at most `limit` events, with their deliveries and attempts, that were delivered longer than `retention`
/// ago, or written longer ago and given up; returns how many. A pending event is never deleted.
///
/// # Errors
/// The database's; nothing is changed then.
pub async fn forget(
    db: &Database,
    clock: &Clock,
    retention: Duration,
    limit: u64,
) -> Result<u64, DbErr> {
    let before = clock.before(retention);
    db.write(move |transaction| Box::pin(delete(transaction, before, limit)))
        .await
}

async fn delete(
    transaction: &impl ConnectionTrait,
    before: Timestamp,
    limit: u64,
) -> Result<u64, DbErr> {
    let mut done = Vec::new();
    for (status, since) in [
        (EventStatus::Delivered, outbox_event::Column::DeliveredAt),
        (EventStatus::Failed, outbox_event::Column::CreatedAt),
    ] {
        let ids: Vec<EventId> = outbox_event::Entity::find()
            .select_only()
            .column(outbox_event::Column::Id)
            .filter(outbox_event::Column::Status.eq(status))
            .filter(since.lt(before))
            .order_by_asc(outbox_event::Column::Id)
            .limit(limit.saturating_sub(u64::try_from(done.len()).unwrap_or(u64::MAX)))
            // One that somebody makes pending again at this moment is passed over.
            .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
            .into_tuple()
            .all(transaction)
            .await?;
        done.extend(ids);
    }
    if done.is_empty() {
        return Ok(0);
    }
    let deleted = outbox_event::Entity::delete_many()
        .filter(outbox_event::Column::Id.is_in(done))
        .filter(outbox_event::Column::Status.ne(EventStatus::Pending))
        .exec(transaction)
        .await?;
    Ok(deleted.rows_affected)
}
