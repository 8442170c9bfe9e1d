//! What API and dashboard learn from the queues: which files have become final, who works on what, and what waits.
//! All of it may be missing.

use crate::api::{QueueFigures, QueueHealth, Waiters};
use entity::{DeliveryId, FileId};
use futures::{FutureExt, StreamExt, future::BoxFuture};
use landfall_queue::{
    Inspector, MemoryUse, MinuteCount, NewJob, QueueError, QueueStats, WorkerInfo,
};
use landfall_workers::{MaintenanceJob, QueueName, Queues, SETTLED};
use serde_json::Value;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio_util::sync::CancellationToken;

/// A worker that has been silent for longer is not counted: a live one beats every 2.5 s, and of one that is gone the
/// alert rules are to tell within 15 s, which takes a scrape and an evaluation of 2 s each.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(9);

/// Minutes of a queue's history.
const HISTORY_MINUTES: u32 = 60;

/// The way to the queues; cheap to clone.
#[derive(Clone, Debug)]
pub struct QueueMonitor {
    queues: Queues,
}

impl QueueMonitor {
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

/// One queue, as it is now.
#[derive(Clone, Debug)]
pub struct QueueSnapshot {
    pub name: QueueName,
    pub stats: QueueStats,
    /// Of the last hour, oldest first.
    pub minutes: Vec<MinuteCount>,
}

/// Everything the queues know, as it is now.
#[derive(Clone, Debug)]
pub struct QueuesSnapshot {
    pub queues: Vec<QueueSnapshot>,
    /// Newest beat first.
    pub workers: Vec<WorkerInfo>,
    pub memory: MemoryUse,
}

/// What a job is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobSubject {
    File(FileId),
    Delivery(DeliveryId),
}

/// The subject of a job's arguments.
#[must_use]
pub fn subject(args: &Value) -> Option<JobSubject> {
    let id = |name: &str| args[name].as_str();
    let file = id("file_id").and_then(|id| id.parse().ok());
    let delivery = id("delivery_id").and_then(|id| id.parse().ok());
    file.map(JobSubject::File)
        .or(delivery.map(JobSubject::Delivery))
}

impl QueueMonitor {
    /// For looking at single jobs, and repairing them.
    #[must_use]
    pub fn inspector(&self) -> Inspector {
        Inspector::new(self.queues.redis.clone())
    }

    /// Every queue and worker.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn load(&self) -> Result<QueuesSnapshot, QueueError> {
        let inspector = self.inspector();
        let queue = async |name: QueueName| {
            let (stats, minutes) = tokio::try_join!(
                inspector.stats(name.as_str()),
                inspector.per_minute(name.as_str(), HISTORY_MINUTES)
            )?;
            Ok(QueueSnapshot {
                name,
                stats,
                minutes,
            })
        };
        let [first, second, third] = QueueName::ALL;
        let (first, second, third, workers, memory) = tokio::try_join!(
            queue(first),
            queue(second),
            queue(third),
            inspector.workers(),
            inspector.memory()
        )?;
        Ok(QueuesSnapshot {
            queues: vec![first, second, third],
            workers,
            memory,
        })
    }

    /// Has a worker sweep, now.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn sweep(&self) -> Result<(), QueueError> {
        self.push(|tick| MaintenanceJob::Sweep { tick }).await
    }

    /// Has a worker audit the installation, now; not a second time while one does.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn audit(&self) -> Result<(), QueueError> {
        self.push(|tick| MaintenanceJob::Audit { tick }).await
    }

    async fn push(&self, job: impl Fn(u64) -> MaintenanceJob) -> Result<(), QueueError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let job = job(now.unwrap_or_default().as_secs() + 1);
        let new = NewJob::new(job.id(), job);
        self.queues.maintenance.push(new).await.map(drop)
    }
}

/// True when this worker has said lately that it lives.
#[must_use]
pub fn is_alive(worker: &WorkerInfo, now: SystemTime) -> bool {
    now.duration_since(worker.last_beat).unwrap_or_default() < HEARTBEAT_TIMEOUT
}

impl QueueHealth for QueueMonitor {
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
            let alive = workers.iter().filter(|worker| is_alive(worker, now));
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
