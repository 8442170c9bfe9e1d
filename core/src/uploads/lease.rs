//! Leases of writers: short, and renewed while the work continues.

use sea_orm::DbErr;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long a lease lasts: after this, an upload can continue whose process was killed.
pub(super) const LEASE: Duration = Duration::from_secs(5);
/// How often it is renewed.
const RENEW_INTERVAL: Duration = Duration::from_millis(1500);
/// How long a new writer waits for an active one before it gets an error: longer than a lease, so that after a process
/// was killed the first retry succeeds.
pub(super) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(6);
/// How often a waiting writer checks.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Runs `work` while `renew` keeps returning true. When the lease is lost, `stop` is cancelled, and the work is
/// expected to end soon.
pub(super) async fn renewing<T, F>(
    stop: &CancellationToken,
    renew: impl Fn() -> F,
    work: impl Future<Output = T>,
) -> T
where
    F: Future<Output = Result<bool, DbErr>>,
{
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::time::sleep(RENEW_INTERVAL) => match renew().await {
                Ok(true) => {}
                Ok(false) => stop.cancel(),
                // The row decides in the end; until then the work may continue.
                Err(error) => tracing::debug!(%error, "the lease of a writer was not renewed"),
            },
        }
    }
}
