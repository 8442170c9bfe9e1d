//! The health of an endpoint, computed from a bounded number of its newest deliveries.

use crate::db::Database;
use entity::{DeliveryId, Timestamp, WebhookId, attempt, delivery};
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use std::time::Duration;

/// Maximum number of deliveries examined, the newest.
pub const HEALTH_DELIVERIES: u64 = 100;

/// Maximum number of their attempts examined, the newest.
const HEALTH_ATTEMPTS: u64 = 1_000;

/// Statistics of the attempts of an endpoint's newest deliveries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointHealth {
    pub attempts: u64,
    /// Attempts answered with a 2xx.
    pub succeeded: u64,
    /// `None` without an attempt.
    pub median: Option<Duration>,
    /// The 95th percentile of durations.
    pub p95: Option<Duration>,
    /// The newest failed attempt.
    pub last_failure: Option<FailedAttempt>,
    pub last_success_at: Option<Timestamp>,
    /// When the oldest examined attempt was made.
    pub since: Option<Timestamp>,
}

/// An attempt that did not get a 2xx.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedAttempt {
    pub at: Timestamp,
    /// `None` if there was no response.
    pub status_code: Option<u16>,
    pub error: String,
}

impl EndpointHealth {
    /// The share of successful attempts, 0 to 1; `None` without an attempt.
    #[must_use]
    pub fn success_rate(&self) -> Option<f64> {
        (self.attempts > 0).then(|| self.succeeded as f64 / self.attempts as f64)
    }
}

type AttemptRow = (Timestamp, Option<i32>, i64, Option<String>);

/// Examines the newest [`HEALTH_DELIVERIES`] deliveries of an endpoint.
///
/// # Errors
/// Database errors.
pub async fn health(db: &Database, webhook: WebhookId) -> Result<EndpointHealth, DbErr> {
    let newest: Vec<DeliveryId> = delivery::Entity::find()
        .select_only()
        .column(delivery::Column::Id)
        .filter(delivery::Column::WebhookId.eq(webhook))
        .order_by_desc(delivery::Column::Id)
        .limit(HEALTH_DELIVERIES)
        .into_tuple()
        .all(db.read())
        .await?;
    if newest.is_empty() {
        return Ok(EndpointHealth::default());
    }
    let rows: Vec<AttemptRow> = attempt::Entity::find()
        .select_only()
        .column(attempt::Column::At)
        .column(attempt::Column::StatusCode)
        .column(attempt::Column::DurationMs)
        .column(attempt::Column::Error)
        .filter(attempt::Column::DeliveryId.is_in(newest))
        .order_by_desc(attempt::Column::Id)
        .limit(HEALTH_ATTEMPTS)
        .into_tuple()
        .all(db.read())
        .await?;
    Ok(summarize(&rows))
}

/// Computes the statistics of attempts, newest first.
fn summarize(rows: &[AttemptRow]) -> EndpointHealth {
    let succeeded = |row: &&AttemptRow| matches!(row.1, Some(200..=299)) && row.3.is_none();
    let mut took: Vec<u64> = rows
        .iter()
        .map(|row| u64::try_from(row.2).unwrap_or(0))
        .collect();
    took.sort_unstable();
    let failure = rows.iter().find(|row| !succeeded(row));
    EndpointHealth {
        attempts: rows.len() as u64,
        succeeded: rows.iter().filter(succeeded).count() as u64,
        median: percentile(&took, 50),
        p95: percentile(&took, 95),
        last_failure: failure.map(|(at, code, _, error)| FailedAttempt {
            at: *at,
            status_code: code.and_then(|code| u16::try_from(code).ok()),
            error: error.clone().unwrap_or_default(),
        }),
        last_success_at: rows.iter().find(succeeded).map(|row| row.0),
        since: rows.last().map(|row| row.0),
    }
}

/// The percentile by the nearest-rank method.
fn percentile(sorted_ms: &[u64], percent: usize) -> Option<Duration> {
    let rank = (sorted_ms.len() * percent).div_ceil(100);
    let millis = sorted_ms.get(rank.saturating_sub(1))?;
    Some(Duration::from_millis(*millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_as_healthy_as_its_attempts() {
        let at = |second| Timestamp::from_timestamp(second, 0).unwrap();
        let rows = [
            (at(9), Some(200), 10, None),
            (at(8), Some(503), 40, Some("answered 503".to_owned())),
            (at(7), None, 30_000, Some("no response".to_owned())),
            (at(6), Some(204), 20, None),
        ];
        let health = summarize(&rows);
        assert_eq!(health.success_rate(), Some(0.5));
        assert_eq!(health.median, Some(Duration::from_millis(20)));
        assert_eq!(health.p95, Some(Duration::from_secs(30)));
        assert_eq!(health.last_success_at, Some(at(9)));
        assert_eq!(health.since, Some(at(6)));
        let failure = health.last_failure.unwrap();
        assert_eq!((failure.at, failure.status_code), (at(8), Some(503)));
        assert_eq!(summarize(&[]), EndpointHealth::default());
    }
}
