//! Limits how many deliveries to a failing endpoint run concurrently.
//!
//! Owns the group limits of the deliver queue. The database knows which endpoints fail; Redis has the limits derived
//! from that, and may lose them. So every worker process sets all limits when it starts and periodically after that,
//! and handlers set one when an attempt changes it.

use crate::jobs::DeliverJob;
use landfall_core::{db::Database, webhooks};
use landfall_queue::Queue;
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// From this many consecutive failures on, an endpoint gets one request at a time until it responds.
const THROTTLE_AFTER: u32 = 5;

/// How often all limits are set again.
const RESTORE_INTERVAL: Duration = Duration::from_secs(10);

/// The limits as last set by this process; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct EndpointLimits {
    queue: Queue<DeliverJob>,
    throttled: Arc<Mutex<HashSet<String>>>,
}

impl EndpointLimits {
    pub(crate) fn new(queue: Queue<DeliverJob>) -> Self {
        Self {
            queue,
            throttled: Arc::default(),
        }
    }

    /// Called after an attempt with the number of consecutive `failures`. A limit that cannot be set now is set with
    /// the others.
    pub(crate) async fn follow(&self, endpoint: &str, failures: u32) {
        let failing = failures >= THROTTLE_AFTER;
        let changed = if failing {
            self.throttled().insert(endpoint.to_owned())
        } else {
            self.throttled().remove(endpoint)
        };
        if changed
            && let Err(error) = self
                .queue
                .set_group_limit(endpoint, failing.then_some(1))
                .await
        {
            tracing::debug!(%error, webhook.id = endpoint, "the limit of the endpoint could not be set yet");
        }
    }

    /// Sets the limits of all endpoints from the database, now and every ten seconds, until stopped.
    pub(crate) async fn keep_restored(self, db: Database, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(RESTORE_INTERVAL);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            stop.run_until_cancelled(self.restore(&db)).await;
        }
    }

    async fn restore(&self, db: &Database) {
        let failing = match webhooks::failing(db, THROTTLE_AFTER).await {
            Ok(failing) => failing,
            Err(error) => {
                tracing::debug!(%error, "the limits of endpoints could not be read from the database");
                return;
            }
        };
        let failing: HashSet<String> = failing.iter().map(ToString::to_string).collect();
        let limits = failing.iter().map(|endpoint| (endpoint.clone(), 1));
        match self.queue.set_group_limits(limits).await {
            Ok(()) => *self.throttled() = failing,
            Err(error) => tracing::debug!(%error, "the limits of endpoints could not be set yet"),
        }
    }

    fn throttled(&self) -> MutexGuard<'_, HashSet<String>> {
        self.throttled
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
