//! Leases of writers: short, and renewed for as long as the work under them goes on.

use sea_orm::DbErr;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long a lease lives: what a killed process was writing can go on after it.
pub(super) const LEASE: Duration = Duration::from_secs(5);
/// How often it is renewed.
const RENEW_INTERVAL: Duration = Duration::from_millis(1500);
/// How long a newcomer waits for a writer at work before it is told so: longer than a lease lives, so that what a
/// killed process was writing goes on at the first try.
pub(super) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(6);
/// How often it looks.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Does `work` while `renew` answers true from time to time. When the lease is lost, `stop` is cancelled, and the work
/// is expected to end soon.
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
                // The row decides in the end; until then the bytes may go on.
                Err(error) => tracing::debug!(%error, "the lease of a writer was not renewed"),
            },
        }
    }
}
