//! Runs workers until the caller stops them.

use std::time::Duration;

use apalis_core::monitor::{Monitor, MonitorError};
use tokio_util::sync::CancellationToken;

use crate::Redis;

/// Runs the workers of `monitor` until `stop` is cancelled. They then fetch no more jobs, and running jobs have
/// `finish_within` to end. Jobs that are still running after that are stopped and released, so that another worker
/// starts them at once, as are fetched jobs that were not started.
///
/// A worker that ends for any other reason is restarted by its factory, which must create a new backend each time
/// (`queue.worker(identity.clone())` does).
///
/// Returns once Redis has accepted all outcomes, at most 5 seconds later.
///
/// # Errors
/// What Apalis reports about its workers at the end.
///
/// # Example
/// See the crate documentation.
pub async fn run(
    monitor: Monitor,
    redis: &Redis,
    stop: CancellationToken,
    finish_within: Duration,
) -> Result<(), MonitorError> {
    let result = monitor
        .should_restart(|_, _| true)
        .shutdown_timeout(finish_within)
        .run_with_signal(async move {
            stop.cancelled().await;
            Ok(())
        })
        .await;
    redis.settle(Duration::from_secs(6)).await;
    result
}
