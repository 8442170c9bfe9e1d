//! What the API and the dashboard read from the queues: which files became final, what the workers run, and what is
//! waiting. All of it may be unavailable.

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

/// Workers without a heartbeat for longer are not counted. A live worker sends one every 2.5 s, and the alert rules
/// must detect a dead one within 15 s, which includes a scrape and an evaluation of 2 s each.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(9);

/// Minutes in a queue's history.
const HISTORY_MINUTES: u32 = 60;

/// Access to the queues; cheap to clone.
#[derive(Clone, Debug)]
pub struct QueueMonitor {
    queues: Queues,
}

impl QueueMonitor {
    /// Creates a monitor that does not wake waiting requests.
    #[must_use]
    pub fn new(queues: Queues) -> Self {
        Self { queues }
    }

    /// Creates a monitor that wakes requests waiting for files, until `stop`.
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

/// The current state of one queue.
#[derive(Clone, Debug)]
pub struct QueueSnapshot {
    pub name: QueueName,
    pub stats: QueueStats,
    /// Per minute of the last hour, oldest first.
    pub minutes: Vec<MinuteCount>,
}

/// The current state of all queues and workers.
#[derive(Clone, Debug)]
pub struct QueuesSnapshot {
    pub queues: Vec<QueueSnapshot>,
    /// Most recent heartbeat first.
    pub workers: Vec<WorkerInfo>,
    pub memory: MemoryUse,
}

/// The subject of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobSubject {
    File(FileId),
    Delivery(DeliveryId),
}

/// Returns the subject from a job's arguments.
#[must_use]
pub fn subject(args: &Value) -> Option<JobSubject> {
    let id = |name: &str| args[name].as_str();
    let file = id("file_id").and_then(|id| id.parse().ok());
    let delivery = id("delivery_id").and_then(|id| id.parse().ok());
    file.map(JobSubject::File)
        .or(delivery.map(JobSubject::Delivery))
}

impl QueueMonitor {
    /// For reading and repairing single jobs.
    #[must_use]
    pub fn inspector(&self) -> Inspector {
        Inspector::new(self.queues.redis.clone())
    }

    /// Loads the state of every queue and worker.
    ///
    /// # Errors
    /// If Redis cannot be reached.
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

    /// Enqueues a sweep.
    ///
    /// # Errors
    /// If Redis cannot be reached.
    pub async fn sweep(&self) -> Result<(), QueueError> {
        self.push(|tick| MaintenanceJob::Sweep { tick }).await
    }

    /// Enqueues an audit, unless one is already queued.
    ///
    /// # Errors
    /// If Redis cannot be reached.
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

/// Whether this worker has sent a heartbeat recently.
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
