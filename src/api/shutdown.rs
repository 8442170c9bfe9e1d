//! The phases of a graceful shutdown.
//!
//! 1. Draining, for `server.drain_delay`: `/readyz` answers 503 so that load balancers choose another process, and every
//!    response closes its connection, while requests and new connections are still served.
//! 2. Stopping: the listener is closed, and waiting requests are answered.
//! 3. Closing: connections without a request are closed. A request that was already on its way when the listener closed
//!    is still answered.

use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long connections without a request stay open after the listener was closed, at most.
const MAX_CLOSE_DELAY: Duration = Duration::from_secs(1);

/// Signals the phases; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    draining: CancellationToken,
    stop: CancellationToken,
    closing: CancellationToken,
}

impl Shutdown {
    /// A shutdown without draining: all phases begin when this token is cancelled.
    #[must_use]
    pub fn immediate(stop: CancellationToken) -> Self {
        Self {
            draining: stop.clone(),
            closing: stop.clone(),
            stop,
        }
    }

    /// Goes through the phases. With a delay of zero they all begin at once.
    pub async fn begin(&self, drain_delay: Duration) {
        self.draining.cancel();
        tokio::time::sleep(drain_delay).await;
        self.stop.cancel();
        tokio::time::sleep(drain_delay.min(MAX_CLOSE_DELAY)).await;
        self.closing.cancel();
    }

    /// Whether other processes should be chosen for further requests.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Returns when this connection should take no further streams: when draining begins, or, if it was opened later,
    /// when the listener is closed.
    pub(super) fn goaway(&self) -> CancellationToken {
        match self.is_draining() {
            true => self.stop.clone(),
            false => self.draining.clone(),
        }
    }

    /// Cancelled when the listener must be closed and long requests must end.
    #[must_use]
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Cancelled when connections without a request must be closed.
    pub(super) fn closing(&self) -> &CancellationToken {
        &self.closing
    }
}
