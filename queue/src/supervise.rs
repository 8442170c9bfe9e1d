//! Running workers so that nothing but the caller ends them.

use std::time::Duration;

use apalis_core::monitor::{Monitor, MonitorError};
use tokio_util::sync::CancellationToken;

use crate::Redis;

/// Runs the workers of `monitor` until `stop` is cancelled; then they take no more jobs, and those
/// that run have `finish_within` to end. What still runs then is stopped and given back, so that
/// another worker starts it at once; so is what was fetched and not begun.
///
/// A worker that ends for any other reason is started again by its factory, which must make a new
/// backend each time (`queue.worker(identity.clone())` does).
///
/// Returns when Redis has been told, at most 5 seconds later.
///
/// # Errors
/// What Apalis reports of its workers at the end.
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
