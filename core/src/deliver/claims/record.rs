//! Records attempts: for a whole batch, the attempts, the deliveries, the counters of their events and the failures of
//! their endpoints are written in one transaction.

use super::{AttemptRecord, Verdict, endpoints::update_endpoints};
use crate::{
    batcher::Batch,
    clock::Clock,
    db::Database,
    outbox::counters::{self, CounterChange, CounterChanges},
};
use entity::{
    DeliveryId, Timestamp, attempt,
    delivery::{self, DeliveryStatus},
    minute_count,
};
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder,
    QuerySelect,
    sea_query::{CaseStatement, Expr, ExprTrait, LockType, OnConflict, SimpleExpr},
};
use std::{collections::HashMap, sync::Arc};

/// The outcome of recording one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordOutcome {
    /// False if another worker held the lease by then; nothing was changed.
    pub(crate) kept: bool,
    /// Consecutive failures of the endpoint after this batch; 0 if the endpoint was deleted.
    pub(crate) consecutive_failures: u32,
}

pub(super) async fn record(
    db: Database,
    clock: Clock,
    entries: Batch<AttemptRecord>,
) -> Result<Vec<RecordOutcome>, DbErr> {
    let now = clock.now();
    db.write_repeatable(move |transaction| Box::pin(write(transaction, now, Arc::clone(&entries))))
        .await
}

async fn write(
    transaction: &impl ConnectionTrait,
    now: Timestamp,
    entries: Batch<AttemptRecord>,
) -> Result<Vec<RecordOutcome>, DbErr> {
    let settled = entries.iter().filter(|entry| entry.verdict.is_final());
    counters::lock(transaction, settled.map(|entry| entry.event_id)).await?;
    let owners = lock_deliveries(transaction, &entries).await?;
    let kept: Vec<&AttemptRecord> = entries
        .iter()
        .map(Arc::as_ref)
        .filter(|entry| owners.get(&entry.delivery_id) == Some(&entry.lease_owner))
        .collect();
    let mut failures = HashMap::new();
    if !kept.is_empty() {
        insert_attempts(transaction, &kept).await?;
        update_delivered(transaction, now, &kept).await?;
        update_undelivered(transaction, now, &kept).await?;
        event_changes(&kept).apply(transaction, now).await?;
        failures = update_endpoints(transaction, now, &kept).await?;
        count_minute(transaction, now, &kept).await?;
    }
    Ok(entries
        .iter()
        .map(|entry| RecordOutcome {
            kept: owners.get(&entry.delivery_id) == Some(&entry.lease_owner),
            consecutive_failures: failures
                .get(&entry.webhook_id)
                .and_then(|count| u32::try_from(*count).ok())
                .unwrap_or(0),
        })
        .collect())
}

impl Verdict {
    /// Whether the delivery is no longer pending.
    fn is_final(&self) -> bool {
        !matches!(self, Self::Retry { .. })
    }

    pub(in crate::deliver) fn reason(&self) -> Option<&str> {
        match self {
            Self::Delivered => None,
            Self::Retry { error, .. } | Self::Failed { error } | Self::Gone { error } => {
                Some(error)
            }
        }
    }
}

/// Locks the pending deliveries, in the order of their ids, and returns their lease owners.
async fn lock_deliveries(
    transaction: &impl ConnectionTrait,
    entries: &[Arc<AttemptRecord>],
) -> Result<HashMap<DeliveryId, String>, DbErr> {
    let rows: Vec<(DeliveryId, Option<String>)> = delivery::Entity::find()
        .select_only()
        .column(delivery::Column::Id)
        .column(delivery::Column::LeaseOwner)
        .filter(delivery::Column::Id.is_in(entries.iter().map(|entry| entry.delivery_id)))
        .filter(delivery::Column::Status.eq(DeliveryStatus::Pending))
        .order_by_asc(delivery::Column::Id)
        .lock(LockType::NoKeyUpdate)
        .into_tuple()
        .all(transaction)
        .await?;
    Ok(rows
        .into_iter()
        .filter_map(|(id, owner)| Some((id, owner?)))
        .collect())
}

async fn insert_attempts(
    transaction: &impl ConnectionTrait,
    kept: &[&AttemptRecord],
) -> Result<(), DbErr> {
    let made: Vec<_> = kept
        .iter()
        .filter_map(|entry| entry.attempt.clone())
        .map(IntoActiveModel::into_active_model)
        .collect();
    if !made.is_empty() {
        attempt::Entity::insert_many(made)
            .exec_without_returning(transaction)
            .await?;
    }
    Ok(())
}

async fn update_delivered(
    transaction: &impl ConnectionTrait,
    now: Timestamp,
    kept: &[&AttemptRecord],
) -> Result<(), DbErr> {
    let (ids, owners): (Vec<_>, Vec<_>) = kept
        .iter()
        .filter(|entry| matches!(entry.verdict, Verdict::Delivered))
        .map(|entry| (entry.delivery_id, entry.lease_owner.clone()))
        .unzip();
    if ids.is_empty() {
        return Ok(());
    }
    let one_more = |column: delivery::Column| Expr::col(column).add(1);
    delivery::Entity::update_many()
        .col_expr(
            delivery::Column::Status,
            Expr::val(DeliveryStatus::Delivered),
        )
        .col_expr(delivery::Column::DeliveredAt, Expr::val(now))
        .col_expr(
            delivery::Column::NextAttemptAt,
            Expr::val(None::<Timestamp>),
        )
        .col_expr(delivery::Column::LastError, Expr::val(None::<String>))
        .col_expr(delivery::Column::LeaseOwner, Expr::val(None::<String>))
        .col_expr(
            delivery::Column::LeaseExpiresAt,
            Expr::val(None::<Timestamp>),
        )
        .col_expr(delivery::Column::UpdatedAt, Expr::val(now))
        .col_expr(
            delivery::Column::AttemptCount,
            one_more(delivery::Column::AttemptCount),
        )
        .col_expr(
            delivery::Column::AttemptsThisRound,
            one_more(delivery::Column::AttemptsThisRound),
        )
        .filter(delivery::Column::Id.is_in(ids))
        .filter(delivery::Column::Status.eq(DeliveryStatus::Pending))
        .filter(delivery::Column::LeaseOwner.is_in(distinct(owners)))
        .exec(transaction)
        .await?;
    Ok(())
}

/// Updates deliveries that are retried or have failed. Values that differ by row are a CASE over the id.
async fn update_undelivered(
    transaction: &impl ConnectionTrait,
    now: Timestamp,
    kept: &[&AttemptRecord],
) -> Result<(), DbErr> {
    let undelivered = |entry: &&&AttemptRecord| !matches!(entry.verdict, Verdict::Delivered);
    let rows: Vec<&&AttemptRecord> = kept.iter().filter(undelivered).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let each = |value: &dyn Fn(&AttemptRecord) -> SimpleExpr| {
        rows.iter()
            .fold(CaseStatement::new(), |case, entry| {
                case.case(delivery::Column::Id.eq(entry.delivery_id), value(entry))
            })
            .into()
    };
    let status = |entry: &AttemptRecord| match entry.verdict {
        Verdict::Retry { .. } => Expr::val(DeliveryStatus::Pending),
        _ => Expr::val(DeliveryStatus::Failed),
    };
    let next_attempt_at = |entry: &AttemptRecord| match entry.verdict {
        Verdict::Retry { at, .. } => Expr::val(Some(at)),
        _ => Expr::val(None::<Timestamp>),
    };
    let attempts = |column: delivery::Column| {
        move |entry: &AttemptRecord| Expr::col(column).add(i32::from(entry.attempt.is_some()))
    };
    delivery::Entity::update_many()
        .col_expr(delivery::Column::Status, each(&status))
        .col_expr(delivery::Column::NextAttemptAt, each(&next_attempt_at))
        .col_expr(
            delivery::Column::LastError,
            each(&|entry| Expr::val(entry.verdict.reason().map(str::to_owned))),
        )
        .col_expr(delivery::Column::LeaseOwner, Expr::val(None::<String>))
        .col_expr(
            delivery::Column::LeaseExpiresAt,
            Expr::val(None::<Timestamp>),
        )
        .col_expr(delivery::Column::UpdatedAt, Expr::val(now))
        .col_expr(
            delivery::Column::AttemptCount,
            each(&attempts(delivery::Column::AttemptCount)),
        )
        .col_expr(
            delivery::Column::AttemptsThisRound,
            each(&attempts(delivery::Column::AttemptsThisRound)),
        )
        .filter(delivery::Column::Id.is_in(rows.iter().map(|entry| entry.delivery_id)))
        .filter(delivery::Column::Status.eq(DeliveryStatus::Pending))
        .filter(delivery::Column::LeaseOwner.is_in(distinct(
            rows.iter().map(|entry| entry.lease_owner.clone()).collect(),
        )))
        .exec(transaction)
        .await?;
    Ok(())
}

fn distinct(mut owners: Vec<String>) -> Vec<String> {
    owners.sort_unstable();
    owners.dedup();
    owners
}

fn event_changes(kept: &[&AttemptRecord]) -> CounterChanges {
    let mut changes = CounterChanges::default();
    for entry in kept.iter().filter(|entry| entry.verdict.is_final()) {
        let failed = i32::from(!matches!(entry.verdict, Verdict::Delivered));
        changes.add(
            entry.event_id,
            CounterChange {
                pending: -1,
                failed,
            },
        );
    }
    changes
}

/// Counts this minute's activity, as the last statement: all processes share these rows.
async fn count_minute(
    transaction: &impl ConnectionTrait,
    now: Timestamp,
    kept: &[&AttemptRecord],
) -> Result<(), DbErr> {
    let delivered = kept
        .iter()
        .filter(|entry| matches!(entry.verdict, Verdict::Delivered))
        .count();
    let attempts = kept.iter().filter(|entry| entry.attempt.is_some()).count();
    let failed = attempts.saturating_sub(delivered);
    let row = |name: &str, count: usize| minute_count::ActiveModel {
        minute: Set(now.timestamp().div_euclid(60)),
        name: Set(name.to_owned()),
        count: Set(i64::try_from(count).unwrap_or(i64::MAX)),
    };
    let rows: Vec<_> = [
        ("attempts_failed", failed),
        ("deliveries_delivered", delivered),
    ]
    .into_iter()
    .filter(|(_, count)| *count > 0)
    .map(|(name, count)| row(name, count))
    .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let sum = Expr::col((minute_count::Entity, minute_count::Column::Count))
        .add(Expr::cust("excluded.count"));
    minute_count::Entity::insert_many(rows)
        .on_conflict(
            OnConflict::columns([minute_count::Column::Minute, minute_count::Column::Name])
                .value(minute_count::Column::Count, sum)
                .to_owned(),
        )
        .exec_without_returning(transaction)
        .await?;
    Ok(())
}
