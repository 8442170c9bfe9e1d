//! What the API learns from Redis: which files have become final, and who works. All of it may be missing.

use crate::http::{Health, QueueFigures, Waiters};
use futures::{FutureExt, StreamExt, future::BoxFuture};
use landfall_queue::Inspector;
use landfall_workers::{QueueName, Queues, SETTLED};
use std::time::{Duration, SystemTime};
use tokio_util::sync::CancellationToken;

/// A worker that has been silent for longer is not counted: a live one beats every 2.5 s, and one that is gone is to
/// be missed within 15 s.
const ALIVE: Duration = Duration::from_secs(12);

/// The API's view of the workers.
#[derive(Clone, Debug)]
pub struct WorkersView {
    queues: Queues,
}

impl WorkersView {
    /// Wakes nobody.
    #[must_use]
    pub fn new(queues: Queues) -> Self {
        Self { queues }
    }

    /// Wakes those who wait for files, from now until told to stop.
    #[must_use]
    pub fn start(queues: Queues, waiters: Waiters, stop: CancellationToken) -> Self {
        let mut settled = queues.redis.subscribe(SETTLED);
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            while let Some(message) = settled.next().await {
                if let Ok(file) = message.parse() {
                    waiters.settled(file);
                }
            }
        }));
        Self::new(queues)
    }
}

impl Health for WorkersView {
    fn redis(&self) -> BoxFuture<'_, Result<(), String>> {
        let ping = self.queues.redis.ping();
        async move { ping.await.map(drop).map_err(|error| error.to_string()) }.boxed()
    }

    fn workers(&self) -> BoxFuture<'_, Result<usize, String>> {
        let inspector = Inspector::new(self.queues.redis.clone());
        async move {
            let workers = inspector
                .workers()
                .await
                .map_err(|error| error.to_string())?;
            let now = SystemTime::now();
            let alive = workers.iter().filter(|worker| {
                let silent = now.duration_since(worker.last_beat).unwrap_or_default();
                silent < ALIVE
            });
            Ok(alive.count())
        }
        .boxed()
    }

    fn queues(&self) -> BoxFuture<'_, Result<Vec<QueueFigures>, String>> {
        let inspector = Inspector::new(self.queues.redis.clone());
        async move {
            let mut all = Vec::new();
            for queue in QueueName::ALL {
                let name = queue.as_str();
                let stats = inspector.stats(name).await;
                let stats = stats.map_err(|error| error.to_string())?;
                all.push(QueueFigures {
                    name,
                    ready: stats.ready,
                    scheduled: stats.scheduled,
                    running: stats.running,
                    dead: stats.dead,
                    done_total: stats.done_total,
                    failed_total: stats.failed_total,
                    latency: stats.oldest_ready_age.unwrap_or_default(),
                    paused: stats.paused,
                });
            }
            Ok(all)
        }
        .boxed()
    }
}
