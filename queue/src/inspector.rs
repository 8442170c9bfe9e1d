//! Inspecting and repairing queues manually. Every call has constant cost or works on one bounded page.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use redis::FromRedisValue;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    QueueError, Redis,
    inspection::{
        JobInfo, JobState, MemoryUse, MinuteCount, QueueStats, RunningJob, WorkerInfo,
        eviction_policies, time,
    },
    keys::Keys,
    scripts,
};

/// Maximum number of jobs per page.
const PAGE: usize = 1_000;

/// Inspects every queue of an installation. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Inspector {
    redis: Redis,
}

/// id, state, arguments, (attempts, max attempts, crashes), (born, due, began, ended),
/// (group, owner, error, trace)
type JobRow = (
    String,
    String,
    Vec<u8>,
    (u32, u32, u32),
    (String, String, String, String),
    (String, String, String, String),
);

impl Inspector {
    /// Creates an inspector of the queues in `redis`.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        Self { redis }
    }

    /// Returns the names of all queues that were ever used, in alphabetical order.
    ///
    /// # Errors
    /// Here and below: [`QueueError::Redis`] or [`QueueError::Timeout`].
    pub async fn queues(&self) -> Result<Vec<String>, QueueError> {
        let mut command = redis::cmd("SMEMBERS");
        command.arg(Keys::registry(self.redis.prefix()).queues());
        let mut queues: Vec<String> = self.redis.command(&command).await?;
        queues.sort();
        Ok(queues)
    }

    /// Returns the statistics of a queue, at constant cost; all zero for an unknown queue.
    ///
    /// # Errors
    /// [`QueueError::Redis`] or [`QueueError::Timeout`].
    pub async fn stats(&self, queue: &str) -> Result<QueueStats, QueueError> {
        type Figures = (u64, u64, u64, u64, u64, u64, u64, i64, u64, i64);
        let (ready, scheduled, running, dead, done, done_total, failed_total, oldest, paused, next) =
            self.run::<Figures>(&scripts::STATS, queue, &[]).await?;
        Ok(QueueStats {
            ready,
            scheduled,
            running,
            dead,
            done_kept: done,
            done_total,
            failed_total,
            oldest_ready_age: u64::try_from(oldest).ok().map(Duration::from_micros),
            paused: paused == 1,
            next_scheduled_at: u64::try_from(next)
                .ok()
                .map(|us| UNIX_EPOCH + Duration::from_micros(us)),
        })
    }

    /// Returns done jobs and failed attempts per minute, oldest first, for each of the last `minutes` minutes (1 to
    /// 1440). The last minute is still in progress.
    ///
    /// # Errors
    /// [`QueueError::Redis`] or [`QueueError::Timeout`].
    pub async fn per_minute(
        &self,
        queue: &str,
        minutes: u32,
    ) -> Result<Vec<MinuteCount>, QueueError> {
        let minutes = minutes.clamp(1, 1_440);
        let reply: Vec<redis::Value> = self
            .run(&scripts::MINUTES, queue, &[&minutes.to_string()])
            .await?;
        MinuteCount::read(reply, u64::from(minutes)).map_err(QueueError::Redis)
    }

    /// Returns the workers, newest heartbeat first, at most 1,000. A dead worker is listed for ten minutes, with an old
    /// `last_beat`; a live one sends a heartbeat at least every 2.5 s.
    ///
    /// # Errors
    /// [`QueueError::Redis`] or [`QueueError::Timeout`].
    pub async fn workers(&self) -> Result<Vec<WorkerInfo>, QueueError> {
        let mut script = scripts::WORKERS.prepare_invoke();
        script.key(Keys::registry(self.redis.prefix()).base);
        let rows: Vec<(String, u64, String)> = self.redis.call(&script).await?;
        Ok(rows
            .into_iter()
            .filter_map(|(_, beat, about)| worker(beat, &about))
            .collect())
    }

    /// Returns the memory usage and limit of Redis, summed over all nodes of a cluster; all zero without permission.
    ///
    /// # Errors
    /// [`QueueError::Redis`] or [`QueueError::Timeout`].
    pub async fn memory(&self) -> Result<MemoryUse, QueueError> {
        let mut command = redis::cmd("INFO");
        command.arg("memory");
        match self.redis.command::<redis::Value>(&command).await {
            Ok(reply) => Ok(MemoryUse::read(&reply)),
            Err(error) if error.is_permission() => Ok(MemoryUse::default()),
            Err(error) => Err(error),
        }
    }

    /// Returns what Redis does when its memory is full: `noeviction`, unless it may lose jobs then. For a cluster, the
    /// policies of its nodes. Empty without permission.
    ///
    /// # Errors
    /// [`QueueError::Redis`] or [`QueueError::Timeout`].
    pub async fn eviction_policies(&self) -> Result<BTreeSet<String>, QueueError> {
        let mut info = redis::cmd("INFO");
        info.arg("memory");
        match self.redis.command::<redis::Value>(&info).await {
            Ok(reply) => Ok(eviction_policies(&reply)),
            Err(error) if error.is_permission() => Ok(BTreeSet::new()),
            Err(error) => Err(error),
        }
    }

    /// Returns a job, or `None` if it is unknown: never pushed, trimmed, deleted or lost.
    ///
    /// # Errors
    /// [`QueueError::Redis`] or [`QueueError::Timeout`].
    pub async fn job(&self, queue: &str, id: &str) -> Result<Option<JobInfo>, QueueError> {
        let rows: Vec<JobRow> = self.run(&scripts::JOBS, queue, &["", id]).await?;
        Ok(rows.into_iter().next().map(job))
    }

    /// Returns a page of jobs in one state, at most 1,000: ready jobs in order (those without a group first), scheduled
    /// ones by due time, running ones by the end of their lease, done and dead ones newest first.
    ///
    /// # Errors
    /// [`QueueError::Redis`] or [`QueueError::Timeout`].
    pub async fn jobs(
        &self,
        queue: &str,
        state: JobState,
        offset: u64,
        limit: usize,
    ) -> Result<Vec<JobInfo>, QueueError> {
        let limit = limit.clamp(1, PAGE).to_string();
        let arguments = [state.as_str(), &offset.to_string(), &limit];
        let rows: Vec<JobRow> = self.run(&scripts::JOBS, queue, &arguments).await?;
        Ok(rows.into_iter().map(job).collect())
    }

    /// Prevents workers from starting jobs of this queue until [`Inspector::resume`]. Running jobs continue.
    ///
    /// # Errors
    /// [`QueueError::Redis`] or [`QueueError::Timeout`].
    pub async fn pause(&self, queue: &str) -> Result<(), QueueError> {
        self.run::<u64>(&scripts::PAUSE, queue, &["1"])
            .await
            .map(drop)
    }

    /// Ends a pause.
    ///
    /// # Errors
    /// [`QueueError::Redis`] or [`QueueError::Timeout`].
    pub async fn resume(&self, queue: &str) -> Result<(), QueueError> {
        self.run::<u64>(&scripts::PAUSE, queue, &["0"])
            .await
            .map(drop)
    }

    /// Makes a dead, done or scheduled job ready, and resets its attempts and crashes. Returns `false` if it is in
    /// another state or unknown.
    ///
    /// # Errors
    /// [`QueueError::Redis`] or [`QueueError::Timeout`].
    pub async fn run_again(&self, queue: &str, id: &str) -> Result<bool, QueueError> {
        let n: u64 = self.run(&scripts::RUN_AGAIN, queue, &["", id]).await?;
        Ok(n == 1)
    }

    /// Makes dead jobs ready, oldest first, at most `limit` (1,000), and returns how many.
    ///
    /// # Errors
    /// [`QueueError::Redis`] or [`QueueError::Timeout`].
    pub async fn run_all_dead_again(&self, queue: &str, limit: usize) -> Result<u64, QueueError> {
        let limit = limit.min(PAGE).to_string();
        self.run(&scripts::RUN_AGAIN, queue, &[&limit]).await
    }

    /// Deletes a job in any state. A running handler continues, but its outcome is ignored. Returns `false` if the job
    /// was unknown.
    ///
    /// # Errors
    /// [`QueueError::Redis`] or [`QueueError::Timeout`].
    pub async fn delete(&self, queue: &str, id: &str) -> Result<bool, QueueError> {
        let n: u64 = self.run(&scripts::DELETE, queue, &["", id]).await?;
        Ok(n == 1)
    }

    /// Deletes jobs in one state, at most `limit` (1,000), and returns how many.
    ///
    /// # Errors
    /// [`QueueError::Redis`] or [`QueueError::Timeout`].
    pub async fn delete_all(
        &self,
        queue: &str,
        state: JobState,
        limit: usize,
    ) -> Result<u64, QueueError> {
        let limit = limit.min(PAGE).to_string();
        self.run(&scripts::DELETE, queue, &[state.as_str(), &limit])
            .await
    }

    async fn run<T: FromRedisValue>(
        &self,
        script: &redis::Script,
        queue: &str,
        arguments: &[&str],
    ) -> Result<T, QueueError> {
        let mut script = script.prepare_invoke();
        script.key(Keys::queue(self.redis.prefix(), queue).base);
        for argument in arguments {
            script.arg(*argument);
        }
        self.redis.call(&script).await
    }
}

fn job(row: JobRow) -> JobInfo {
    let (id, state, args, counts, times, texts) = row;
    let (attempts, max_attempts, crashes) = counts;
    let (born, due, began, ended) = times;
    let (group, owner, error, trace) = texts;
    let text = |text: String| Some(text).filter(|text| !text.is_empty());
    let state = JobState::read(&state);
    JobInfo {
        id,
        state,
        args: serde_json::from_slice(&args).unwrap_or(Value::Null),
        attempts,
        max_attempts,
        crashes,
        last_error: text(error),
        group: text(group),
        trace: text(trace),
        created_at: time(&born).unwrap_or(UNIX_EPOCH),
        run_at: time(&due).filter(|_| state == JobState::Scheduled),
        started_at: time(&began),
        finished_at: time(&ended),
        // The owner of a lease is the worker's name and the number of its fetch.
        owner: text(owner).map(|owner| match owner.rsplit_once('#') {
            Some((worker, _)) => worker.to_owned(),
            None => owner,
        }),
    }
}

#[derive(Deserialize)]
struct WorkerDescription {
    name: String,
    host: String,
    queues: Vec<String>,
    concurrency: usize,
    started_at: u64,
    running: Vec<DescribedJob>,
    slow: usize,
}

#[derive(Deserialize)]
struct DescribedJob {
    id: String,
    since: u64,
}

fn worker(beat: u64, about: &str) -> Option<WorkerInfo> {
    let at = |ms: u64| -> SystemTime { UNIX_EPOCH + Duration::from_millis(ms) };
    let about: WorkerDescription = serde_json::from_str(about).ok()?;
    let running = about.running.into_iter().map(|job| RunningJob {
        id: job.id,
        since: at(job.since),
    });
    Some(WorkerInfo {
        name: about.name,
        host: about.host,
        queues: about.queues,
        concurrency: about.concurrency,
        running: running.collect(),
        slow: about.slow,
        started_at: at(about.started_at),
        last_beat: at(beat),
    })
}
