//! Pushes jobs with a short timeout; no caller depends on the result.
//!
//! While Redis is unreachable nothing is pushed and no caller waits. The first failed push starts a task that polls
//! Redis and pushes a sweep as soon as it responds, so missed jobs are found within moments.

use crate::{
    jobs::{DeliverJob, FinalizeJob, MaintenanceJob},
    queues::{Queues, SETTLED},
};
use entity::FileId;
use futures::future::BoxFuture;
use landfall_core::{
    clock::Clock,
    enqueue::{DueDelivery, JobSink},
};
use landfall_queue::{Job, NewJob, Queue};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Longer than Redis ever needs, shorter than a client is willing to wait.
const PUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// How often an unreachable Redis is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Pushes jobs to the workers through Redis; cheap to clone.
#[derive(Clone, Debug)]
pub struct QueueJobSink {
    queues: Queues,
    clock: Clock,
    away: Arc<AtomicBool>,
}

impl QueueJobSink {
    /// Pushes into these queues.
    #[must_use]
    pub fn new(queues: Queues, clock: Clock) -> Self {
        Self {
            queues,
            clock,
            away: Arc::default(),
        }
    }

    async fn push<J: Job>(&self, queue: &Queue<J>, jobs: Vec<NewJob<J>>) {
        if jobs.is_empty() || self.away.load(Ordering::SeqCst) {
            return;
        }
        let problem = match tokio::time::timeout(PUSH_TIMEOUT, queue.push_many(jobs)).await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no response in time".to_owned(),
        };
        if !self.away.swap(true, Ordering::SeqCst) {
            tracing::warn!(
                queue = J::QUEUE,
                problem,
                "jobs could not be pushed; the sweep pushes them when Redis is back"
            );
            tokio::spawn(self.clone().wait_for_redis());
        }
    }

    async fn wait_for_redis(self) {
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            if self.queues.redis.ping().await.is_err() {
                continue;
            }
            // Other pushes are enabled before the sweep is pushed: everything that was not pushed before this line is
            // committed, so the sweep sees it.
            self.away.store(false, Ordering::SeqCst);
            let tick = u64::try_from(self.clock.now().timestamp()).unwrap_or(0) + 1;
            let sweep = MaintenanceJob::Sweep { tick };
            let pushed = self.queues.maintenance.push(NewJob::new(sweep.id(), sweep));
            if let Ok(Ok(_)) = tokio::time::timeout(PUSH_TIMEOUT, pushed).await {
                tracing::info!("Redis is back; the sweep pushes what was missed");
                return;
            }
            self.away.store(true, Ordering::SeqCst);
        }
    }
}

impl JobSink for QueueJobSink {
    fn finalize<'a>(&'a self, files: &'a [FileId]) -> BoxFuture<'a, ()> {
        let jobs = files
            .iter()
            .map(|id| NewJob::new(FinalizeJob::id(*id), FinalizeJob { file_id: *id }))
            .collect();
        Box::pin(self.push(&self.queues.finalize, jobs))
    }

    fn deliver<'a>(&'a self, due: &'a [DueDelivery]) -> BoxFuture<'a, ()> {
        let now = self.clock.now();
        let jobs = due
            .iter()
            .map(|due| {
                let wait = due
                    .at
                    .and_then(|at| (at - now).to_std().ok())
                    .unwrap_or_default();
                NewJob::new(
                    DeliverJob::id(due.id),
                    DeliverJob {
                        delivery_id: due.id,
                    },
                )
                .group(due.webhook_id.to_string())
                .after(wait)
            })
            .collect();
        Box::pin(self.push(&self.queues.deliver, jobs))
    }

    fn purge<'a>(&'a self, files: &'a [FileId]) -> BoxFuture<'a, ()> {
        let jobs = files
            .iter()
            .map(|id| MaintenanceJob::Purge { file_id: *id })
            .map(|job| NewJob::new(job.id(), job))
            .collect();
        Box::pin(self.push(&self.queues.maintenance, jobs))
    }

    fn settled(&self, file: FileId) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if !self.away.load(Ordering::SeqCst)
                && let Err(error) = self.queues.redis.publish(SETTLED, &file.to_string()).await
            {
                tracing::debug!(%error, "clients waiting for a file could not be notified; they poll");
            }
        })
    }
}
