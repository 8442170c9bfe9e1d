//! The counters of events, which change only in the transaction that changes the status of their deliveries.

use entity::{
    EventId, Timestamp,
    outbox_event::{self, EventStatus},
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    sea_query::{CaseStatement, Expr, ExprTrait, LockType},
};
use std::collections::BTreeMap;

/// By how much the counters of an event change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CounterChange {
    pub(crate) pending: i32,
    pub(crate) failed: i32,
}

/// The changes of one transaction.
#[derive(Debug, Default)]
pub(crate) struct CounterChanges(BTreeMap<EventId, CounterChange>);

impl CounterChanges {
    /// Adds a change caused by a delivery of `event`.
    pub(crate) fn add(&mut self, event: EventId, change: CounterChange) {
        let sum = self.0.entry(event).or_default();
        sum.pending += change.pending;
        sum.failed += change.failed;
    }

    /// Updates the counters and the derived status. The caller must hold the locks (see [`lock`]).
    pub(crate) async fn apply(
        self,
        transaction: &impl ConnectionTrait,
        now: Timestamp,
    ) -> Result<(), DbErr> {
        let mut alike: BTreeMap<CounterChange, Vec<EventId>> = BTreeMap::new();
        for (event, change) in self.0 {
            if change != CounterChange::default() {
                alike.entry(change).or_default().push(event);
            }
        }
        for (change, events) in alike {
            let pending = Expr::col(outbox_event::Column::PendingDeliveries).add(change.pending);
            let failed = Expr::col(outbox_event::Column::FailedDeliveries).add(change.failed);
            outbox_event::Entity::update_many()
                .col_expr(outbox_event::Column::PendingDeliveries, pending.clone())
                .col_expr(outbox_event::Column::FailedDeliveries, failed.clone())
                .col_expr(
                    outbox_event::Column::Status,
                    CaseStatement::new()
                        .case(pending.clone().gt(0), EventStatus::Pending)
                        .case(failed.clone().gt(0), EventStatus::Failed)
                        .finally(EventStatus::Delivered)
                        .into(),
                )
                .col_expr(
                    outbox_event::Column::DeliveredAt,
                    CaseStatement::new()
                        .case(pending.gt(0).or(failed.gt(0)), None::<Timestamp>)
                        .finally(now)
                        .into(),
                )
                .filter(outbox_event::Column::Id.is_in(events))
                .exec(transaction)
                .await?;
        }
        Ok(())
    }
}

/// Locks events until the transaction ends, in the order of their ids, so that transactions do not deadlock. On SQLite
/// the transaction already has the only writer.
pub(crate) async fn lock(
    transaction: &impl ConnectionTrait,
    events: impl IntoIterator<Item = EventId>,
) -> Result<Vec<EventId>, DbErr> {
    let mut events: Vec<EventId> = events.into_iter().collect();
    events.sort_unstable();
    events.dedup();
    if events.is_empty() {
        return Ok(events);
    }
    outbox_event::Entity::find()
        .select_only()
        .column(outbox_event::Column::Id)
        .filter(outbox_event::Column::Id.is_in(events))
        .order_by_asc(outbox_event::Column::Id)
        .lock(LockType::NoKeyUpdate)
        .into_tuple()
        .all(transaction)
        .await
}
