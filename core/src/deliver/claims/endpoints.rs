//! The effect of a batch of attempts on their endpoints.

use super::{AttemptRecord, Verdict};
use entity::{Timestamp, WebhookId, webhook_endpoint};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    sea_query::{CaseStatement, Expr, LockType},
};
use std::collections::{BTreeMap, HashMap};

/// The attempts of a batch at one endpoint.
#[derive(Default)]
struct EndpointTally {
    /// Whether an attempt got a 2xx.
    succeeded: bool,
    /// Number of failed attempts since the last 2xx of the batch.
    failed: i32,
    gone: Option<String>,
}

impl EndpointTally {
    fn per_endpoint(kept: &[&AttemptRecord]) -> BTreeMap<WebhookId, Self> {
        let mut tallies: BTreeMap<WebhookId, Self> = BTreeMap::new();
        for entry in kept {
            let activity = tallies.entry(entry.webhook_id).or_default();
            match &entry.verdict {
                Verdict::Delivered => {
                    activity.succeeded = true;
                    activity.failed = 0;
                }
                Verdict::Gone { error } => activity.gone = Some(error.clone()),
                Verdict::Retry { .. } | Verdict::Failed { .. } => {}
            }
            if entry.attempt.is_some() && !matches!(entry.verdict, Verdict::Delivered) {
                activity.failed += 1;
            }
        }
        tallies
    }

    fn after(&self, before: i32) -> i32 {
        let from = if self.succeeded { 0 } else { before };
        from.saturating_add(self.failed)
    }
}

/// Returns the consecutive failures of each endpoint after this batch. The row of a healthy endpoint is not written, so
/// that concurrent deliveries to it do not wait for each other.
pub(super) async fn update_endpoints(
    transaction: &impl ConnectionTrait,
    now: Timestamp,
    kept: &[&AttemptRecord],
) -> Result<HashMap<WebhookId, i32>, DbErr> {
    let tallies = EndpointTally::per_endpoint(kept);
    let mut counts = failure_counts(transaction, tallies.keys().copied(), None).await?;
    let changing: Vec<WebhookId> = counts
        .iter()
        .filter(|(id, before)| {
            tallies
                .get(id)
                .is_some_and(|activity| activity.after(**before) != **before)
        })
        .map(|(id, _)| *id)
        .collect();
    if !changing.is_empty() {
        let locked = failure_counts(transaction, changing, Some(LockType::NoKeyUpdate)).await?;
        let after: Vec<(WebhookId, i32)> = locked
            .into_iter()
            .filter_map(|(id, before)| Some((id, tallies.get(&id)?.after(before))))
            .collect();
        let case = after
            .iter()
            .fold(CaseStatement::new(), |case, (id, count)| {
                case.case(webhook_endpoint::Column::Id.eq(*id), Expr::val(*count))
            });
        webhook_endpoint::Entity::update_many()
            .col_expr(webhook_endpoint::Column::ConsecutiveFailures, case.into())
            .filter(webhook_endpoint::Column::Id.is_in(after.iter().map(|(id, _)| *id)))
            .exec(transaction)
            .await?;
        counts.extend(after);
    }
    for (id, activity) in tallies {
        if let Some(reason) = activity.gone {
            switch_off(transaction, now, id, reason).await?;
        }
    }
    Ok(counts)
}

async fn failure_counts(
    transaction: &impl ConnectionTrait,
    ids: impl IntoIterator<Item = WebhookId>,
    lock: Option<LockType>,
) -> Result<HashMap<WebhookId, i32>, DbErr> {
    let mut select = webhook_endpoint::Entity::find()
        .select_only()
        .column(webhook_endpoint::Column::Id)
        .column(webhook_endpoint::Column::ConsecutiveFailures)
        .filter(webhook_endpoint::Column::Id.is_in(ids))
        .order_by_asc(webhook_endpoint::Column::Id);
    if let Some(lock) = lock {
        select = select.lock(lock);
    }
    let rows: Vec<(WebhookId, i32)> = select.into_tuple().all(transaction).await?;
    Ok(rows.into_iter().collect())
}

async fn switch_off(
    transaction: &impl ConnectionTrait,
    now: Timestamp,
    id: WebhookId,
    reason: String,
) -> Result<(), DbErr> {
    webhook_endpoint::Entity::update_many()
        .col_expr(webhook_endpoint::Column::Active, Expr::val(false))
        .col_expr(webhook_endpoint::Column::DisabledReason, Expr::val(reason))
        .col_expr(webhook_endpoint::Column::UpdatedAt, Expr::val(now))
        .filter(webhook_endpoint::Column::Id.eq(id))
        .filter(webhook_endpoint::Column::Active.eq(true))
        .exec(transaction)
        .await?;
    Ok(())
}
