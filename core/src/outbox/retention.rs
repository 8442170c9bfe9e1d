//! Deletes events after their retention.
//!
//! Due events are read from a partial index, without blocking the writer, and deleted in small batches. After each
//! batch the writer is left alone for three times as long as the batch took, so most concurrent writes find it free, and
//! the others wait for one batch at most.

use crate::{
    clock::Clock,
    db::{Database, is_transient},
};
use entity::{
    EventId, Timestamp,
    outbox_event::{Column, Entity, EventStatus},
};
use sea_orm::{
    ColumnTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect, sea_query::Expr,
};
use std::time::{Duration, Instant};

/// Events deleted in one transaction, with their deliveries and attempts.
const DELETE_BATCH_SIZE: u64 = 50;

/// How long the writer is left alone after a deletion, as a multiple of the time that took.
const REST: u32 = 3;

/// Maximum number of events that cannot be deleted and are skipped before the rest is left to the next run.
const MAX_STUCK: usize = 100;

/// The events that are deleted, and from when their retention counts.
#[derive(Clone, Copy)]
enum FinalEvents {
    /// Counts from when they were delivered.
    Delivered,
    /// Counts from when they were written.
    Failed,
}

impl FinalEvents {
    const ALL: [Self; 2] = [Self::Delivered, Self::Failed];

    fn since(self) -> Column {
        match self {
            Self::Delivered => Column::DeliveredAt,
            Self::Failed => Column::CreatedAt,
        }
    }

    /// A literal, not a bound value, so that the partial indexes are used.
    fn condition(self) -> &'static str {
        match self {
            Self::Delivered => "status = 'delivered'",
            Self::Failed => "status = 'failed'",
        }
    }
}

/// Deletes at most `limit` events, with their deliveries and attempts, that were delivered longer than `retention` ago,
/// or have failed and were written longer ago; returns how many. Pending events are never deleted.
///
/// # Errors
/// Database errors. An event that cannot be deleted does not block others: the error is returned after the rest is done.
pub async fn delete_old(
    db: &Database,
    clock: &Clock,
    retention: Duration,
    limit: u64,
) -> Result<u64, DbErr> {
    let before = clock.before(retention);
    let (mut deleted, mut stuck, mut fault) = (0, Vec::new(), None);
    for ended in FinalEvents::ALL {
        while deleted < limit && stuck.len() < MAX_STUCK {
            let most = DELETE_BATCH_SIZE.min(limit - deleted);
            let page = due(db, ended, before, &stuck, most).await?;
            if page.is_empty() {
                break;
            }
            let began = Instant::now();
            match delete(db, ended, before, page.clone()).await {
                Ok(count) => deleted += count,
                Err(error) if is_transient(&error) => return Err(error),
                Err(_) => {
                    for id in page {
                        match delete(db, ended, before, vec![id]).await {
                            Ok(count) => deleted += count,
                            Err(error) => {
                                tracing::error!(event.id = %id, %error, "an old event cannot be deleted");
                                stuck.push(id);
                                fault = Some(error);
                            }
                        }
                    }
                }
            }
            tokio::time::sleep(began.elapsed() * REST).await;
        }
    }
    match fault {
        Some(fault) => Err(fault),
        None => Ok(deleted),
    }
}

async fn due(
    db: &Database,
    ended: FinalEvents,
    before: Timestamp,
    stuck: &[EventId],
    most: u64,
) -> Result<Vec<EventId>, DbErr> {
    let mut query = Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(Expr::cust(ended.condition()))
        .filter(ended.since().lt(before))
        .order_by_asc(ended.since())
        .order_by_asc(Column::Id)
        .limit(most);
    if !stuck.is_empty() {
        query = query.filter(Column::Id.is_not_in(stuck.iter().copied()));
    }
    query.into_tuple().all(db.read()).await
}

/// Deletes the events that are still due: one may have been made pending again since it was read.
async fn delete(
    db: &Database,
    ended: FinalEvents,
    before: Timestamp,
    ids: Vec<EventId>,
) -> Result<u64, DbErr> {
    db.write(move |transaction| {
        Box::pin(async move {
            Entity::delete_many()
                .filter(Column::Id.is_in(ids))
                .filter(Column::Status.ne(EventStatus::Pending))
                .filter(ended.since().lt(before))
                .exec(transaction)
                .await
                .map(|deleted| deleted.rows_affected)
        })
    })
    .await
}
