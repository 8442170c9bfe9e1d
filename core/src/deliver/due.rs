//! Due deliveries, for the sweep, and deliveries of deleted endpoints.

use super::claims::{claimable, unleased};
use crate::{
    clock::Clock,
    db::Database,
    enqueue::DueDelivery,
    outbox::counters::{self, CounterChange, CounterChanges},
};
use entity::{
    DeliveryId, EventId, Timestamp, WebhookId,
    delivery::{self, DeliveryStatus},
    webhook_endpoint,
};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect, QueryTrait,
    sea_query::{Expr, LockType},
};

/// Error message of deliveries whose endpoint was deleted.
pub(crate) const ENDPOINT_DELETED: &str = "the endpoint was deleted";

/// The position after a page of due deliveries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueCursor {
    at: Timestamp,
    id: DeliveryId,
}

/// Due deliveries, the longest overdue first.
#[derive(Clone, Debug)]
pub struct DuePage {
    pub due: Vec<DueDelivery>,
    /// `None` on the last page.
    pub next: Option<DueCursor>,
}

/// Returns a page of deliveries that are due and not leased. Pushing those that are already queued is harmless.
///
/// # Errors
/// Database errors.
pub async fn due(
    db: &Database,
    now: Timestamp,
    after: Option<DueCursor>,
    limit: u64,
) -> Result<DuePage, DbErr> {
    let mut select = delivery::Entity::find()
        .select_only()
        .column(delivery::Column::Id)
        .column(delivery::Column::WebhookId)
        .column(delivery::Column::NextAttemptAt)
        .filter(claimable(now))
        .order_by_asc(delivery::Column::NextAttemptAt)
        .order_by_asc(delivery::Column::Id)
        .limit(limit);
    if let Some(cursor) = after {
        select = select
            .filter(delivery::Column::NextAttemptAt.gte(cursor.at))
            .filter(
                Condition::any()
                    .add(delivery::Column::NextAttemptAt.gt(cursor.at))
                    .add(delivery::Column::Id.gt(cursor.id)),
            );
    }
    let rows: Vec<(DeliveryId, WebhookId, Timestamp)> = select.into_tuple().all(db.read()).await?;
    let full = u64::try_from(rows.len()).unwrap_or(u64::MAX) >= limit;
    let next = rows
        .last()
        .filter(|_| full)
        .map(|(id, _, at)| DueCursor { at: *at, id: *id });
    Ok(DuePage {
        due: rows
            .into_iter()
            .map(|(id, webhook_id, _)| DueDelivery {
                id,
                webhook_id,
                at: None,
            })
            .collect(),
        next,
    })
}

/// Fails at most `limit` pending deliveries of deleted endpoints and returns how many. A delivery that is being
/// attempted right now is left to its worker.
///
/// # Errors
/// Database errors; nothing is changed then.
pub async fn fail_orphaned(db: &Database, clock: &Clock, limit: u64) -> Result<usize, DbErr> {
    let deleted = webhook_endpoint::Entity::find()
        .select_only()
        .column(webhook_endpoint::Column::Id)
        .filter(webhook_endpoint::Column::DeletedAt.is_not_null())
        .into_query();
    fail_deliveries(
        db,
        clock,
        delivery::Column::WebhookId.in_subquery(deleted),
        limit,
    )
    .await
}

/// Fails at most `limit` pending deliveries of one deleted endpoint.
pub(crate) async fn fail_endpoint_deliveries(
    db: &Database,
    clock: &Clock,
    webhook: WebhookId,
    limit: u64,
) -> Result<usize, DbErr> {
    fail_deliveries(db, clock, delivery::Column::WebhookId.eq(webhook), limit).await
}

async fn fail_deliveries(
    db: &Database,
    clock: &Clock,
    whose: Expr,
    limit: u64,
) -> Result<usize, DbErr> {
    let now = clock.now();
    let rows: Vec<(DeliveryId, EventId)> = delivery::Entity::find()
        .select_only()
        .column(delivery::Column::Id)
        .column(delivery::Column::EventId)
        .filter(whose)
        .filter(delivery::Column::Status.eq(DeliveryStatus::Pending))
        .filter(unleased(now))
        .limit(limit)
        .into_tuple()
        .all(db.read())
        .await?;
    if rows.is_empty() {
        return Ok(0);
    }
    db.write(move |transaction| Box::pin(give_up(transaction, now, rows)))
        .await
}

async fn give_up(
    transaction: &impl ConnectionTrait,
    now: Timestamp,
    rows: Vec<(DeliveryId, EventId)>,
) -> Result<usize, DbErr> {
    counters::lock(transaction, rows.iter().map(|(_, event)| *event)).await?;
    let pending = delivery::Entity::find()
        .select_only()
        .column(delivery::Column::Id)
        .filter(delivery::Column::Id.is_in(rows.iter().map(|(id, _)| *id)))
        .filter(delivery::Column::Status.eq(DeliveryStatus::Pending))
        .order_by_asc(delivery::Column::Id)
        .lock(LockType::NoKeyUpdate)
        .into_query();
    let ended = delivery::Entity::update_many()
        .col_expr(delivery::Column::Status, Expr::val(DeliveryStatus::Failed))
        .col_expr(delivery::Column::LastError, Expr::val(ENDPOINT_DELETED))
        .col_expr(
            delivery::Column::NextAttemptAt,
            Expr::val(None::<Timestamp>),
        )
        .col_expr(delivery::Column::LeaseOwner, Expr::val(None::<String>))
        .col_expr(
            delivery::Column::LeaseExpiresAt,
            Expr::val(None::<Timestamp>),
        )
        .col_expr(delivery::Column::UpdatedAt, Expr::val(now))
        .filter(delivery::Column::Id.in_subquery(pending))
        .filter(delivery::Column::Status.eq(DeliveryStatus::Pending))
        .filter(unleased(now))
        .exec_with_returning(transaction)
        .await?;
    let mut changes = CounterChanges::default();
    for row in &ended {
        changes.add(
            row.event_id,
            CounterChange {
                pending: -1,
                failed: 1,
            },
        );
    }
    changes.apply(transaction, now).await?;
    Ok(ended.len())
}
