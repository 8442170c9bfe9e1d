//! The producer side of a queue, and the constructors of its workers.

use std::{
    collections::BTreeMap,
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use apalis_core::{layers::Identity, worker::builder::WorkerBuilder};

use crate::{
    Backend, Job, NewJob, PushCounts, PushOutcome, QueueError, Redis, Settings, WorkerIdentity,
    job::check_group, keys::Keys, scripts,
};

/// Jobs sent to Redis per script run; bounds how long a run blocks Redis.
const PAGE: usize = 500;

/// A queue of jobs of one type. Cloning is cheap.
pub struct Queue<J> {
    redis: Redis,
    keys: Keys,
    settings: Arc<Settings>,
    listed: Arc<AtomicBool>,
    job: PhantomData<fn() -> J>,
}

impl<J> Clone for Queue<J> {
    fn clone(&self) -> Self {
        Self {
            redis: self.redis.clone(),
            keys: self.keys.clone(),
            settings: self.settings.clone(),
            listed: self.listed.clone(),
            job: PhantomData,
        }
    }
}

impl<J: Job> std::fmt::Debug for Queue<J> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue")
            .field("queue", &J::QUEUE)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl<J: Job> Queue<J> {
    /// Creates a queue in `redis`, without sending anything. An invalid name is a compile-time error.
    #[must_use]
    pub fn new(redis: Redis, settings: Settings) -> Self {
        const { assert!(is_queue(J::QUEUE), "a queue needs a name without braces") };
        Self {
            keys: Keys::queue(redis.prefix(), J::QUEUE),
            redis,
            settings: Arc::new(settings),
            listed: Arc::default(),
            job: PhantomData,
        }
    }

    /// The Redis of this queue.
    #[must_use]
    pub fn redis(&self) -> &Redis {
        &self.redis
    }

    /// Pushes a job.
    ///
    /// If a job with the same id is
    /// - done, dead or unknown, it is pushed as new ([`PushOutcome::Queued`]);
    /// - ready, it stays ready;
    /// - scheduled (also for a retry), it is moved forward if the new time is earlier;
    /// - running, it runs once more after it is done, at the new time and with the new arguments. The running handler
    ///   may have read data from before this push. If the run fails, its retry counts for the push, and comes no later
    ///   than the push requested.
    ///
    /// The last three return [`PushOutcome::AlreadyQueued`]. Redis may have lost any key of such a job: the push
    /// restores whatever a job in its state must have.
    ///
    /// # Errors
    /// [`QueueError::InvalidId`], [`QueueError::InvalidGroup`] or [`QueueError::Encode`] before anything is sent;
    /// [`QueueError::Redis`] or [`QueueError::Timeout`], after which the job may or may not have been pushed: push it
    /// again.
    pub async fn push(&self, job: NewJob<J>) -> Result<PushOutcome, QueueError> {
        let count = self.push_many([job]).await?;
        Ok(if count.queued == 1 {
            PushOutcome::Queued
        } else {
            PushOutcome::AlreadyQueued
        })
    }

    /// Pushes many jobs, 500 per round trip. See [`Queue::push`].
    ///
    /// # Errors
    /// As [`Queue::push`]. Earlier round trips have been carried out; pushing all jobs again is harmless.
    pub async fn push_many(
        &self,
        jobs: impl IntoIterator<Item = NewJob<J>>,
    ) -> Result<PushCounts, QueueError> {
        let mut total = PushCounts::default();
        let mut page = Vec::with_capacity(1);
        for job in jobs {
            job.check()?;
            page.push(self.encode(job)?);
            if page.len() == PAGE {
                self.push_page(&mut page, &mut total).await?;
            }
        }
        self.push_page(&mut page, &mut total).await?;
        Ok(total)
    }

    fn encode(&self, job: NewJob<J>) -> Result<EncodedJob, QueueError> {
        Ok(EncodedJob {
            args: serde_json::to_vec(&job.args).map_err(QueueError::Encode)?,
            id: job.id,
            group: job.group.unwrap_or_default(),
            max_attempts: job.max_attempts.unwrap_or(self.settings.max_attempts),
            delay_us: micros(job.delay),
            trace: job.trace.unwrap_or_default(),
        })
    }

    async fn push_page(
        &self,
        page: &mut Vec<EncodedJob>,
        total: &mut PushCounts,
    ) -> Result<(), QueueError> {
        if page.is_empty() {
            return Ok(());
        }
        let (queued, already_queued) =
            push_encoded(&self.redis, &self.keys, self.settings.lease, page.drain(..)).await?;
        total.queued += queued;
        total.already_queued += already_queued;
        self.list().await;
        Ok(())
    }

    /// Registers the queue for inspectors. Workers do so with every heartbeat, so once is enough here.
    async fn list(&self) {
        if self.listed.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut command = redis::cmd("SADD");
        command
            .arg(Keys::registry(self.redis.prefix()).queues())
            .arg(J::QUEUE);
        if let Err(error) = self.redis.command::<u64>(&command).await {
            self.listed.store(false, Ordering::Relaxed);
            tracing::debug!(%error, "the queue could not be registered yet");
        }
    }

    /// Limits how many jobs of `group` run concurrently in the whole cluster, overriding the settings; `Some(0)` starts
    /// none, `None` restores the setting. Running jobs continue.
    ///
    /// # Errors
    /// [`QueueError::InvalidGroup`], [`QueueError::Redis`] or [`QueueError::Timeout`].
    pub async fn set_group_limit(&self, group: &str, limit: Option<u32>) -> Result<(), QueueError> {
        check_group(group)?;
        let mut script = scripts::LIMIT.prepare_invoke();
        script.key(&self.keys.base).arg(group);
        script.arg(limit.map_or_else(String::new, |n| n.to_string()));
        self.redis.call::<u64>(&script).await.map(drop)
    }

    /// Sets the limits of these groups like [`Queue::set_group_limit`], and removes the limit of every other group.
    /// Redis may lose limits, so set them again from time to time.
    ///
    /// # Errors
    /// [`QueueError::InvalidGroup`], [`QueueError::Redis`] or [`QueueError::Timeout`].
    pub async fn set_group_limits(
        &self,
        limits: impl IntoIterator<Item = (String, u32)>,
    ) -> Result<(), QueueError> {
        let mut script = scripts::LIMITS.prepare_invoke();
        script.key(&self.keys.base);
        for (group, limit) in limits {
            check_group(&group)?;
            script.arg(group).arg(limit);
        }
        self.redis.call::<u64>(&script).await.map(drop)
    }

    /// Returns the limits that are set, by group.
    ///
    /// # Errors
    /// [`QueueError::Redis`] or [`QueueError::Timeout`].
    pub async fn group_limits(&self) -> Result<BTreeMap<String, u32>, QueueError> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.keys.group_limits());
        self.redis.command(&command).await
    }

    /// Creates the Apalis backend of one worker. Its name in Redis is the identity's name and a random suffix: it
    /// identifies leases, so it is never reused.
    #[must_use]
    pub fn backend(&self, worker: WorkerIdentity) -> Backend<J> {
        Backend::new(
            self.redis.clone(),
            self.keys.clone(),
            self.settings.clone(),
            worker,
        )
    }

    /// Returns a builder of an Apalis worker on this queue, with the name of the backend. Add `data`, layers and the
    /// handler, and run it in a `Monitor` with [`run`](crate::run).
    ///
    /// Do not add `concurrency` (the identity has it), `retry` (it would sleep in a slot) or `catch_panic` (it would
    /// make a job dead after its first panic).
    #[must_use]
    pub fn worker(&self, worker: WorkerIdentity) -> WorkerBuilder<J, Backend<J>, Identity> {
        let backend = self.backend(worker);
        WorkerBuilder::new(backend.worker_name()).backend(backend)
    }
}

/// Braces would break the hash tag, and the registry and the limits have their own tags.
const fn is_queue(name: &str) -> bool {
    let name = name.as_bytes();
    let mut i = 0;
    while i < name.len() {
        if matches!(name[i], b'{' | b'}' | 0..=31 | 127) {
            return false;
        }
        i += 1;
    }
    !name.is_empty() && !matches!(name, b"registry" | b"limits")
}

pub(crate) struct EncodedJob {
    pub(crate) id: String,
    pub(crate) args: Vec<u8>,
    pub(crate) group: String,
    pub(crate) max_attempts: u32,
    pub(crate) delay_us: u64,
    pub(crate) trace: String,
}

/// Returns how many jobs were queued and how many existed.
pub(crate) async fn push_encoded(
    redis: &Redis,
    keys: &Keys,
    lease: std::time::Duration,
    jobs: impl IntoIterator<Item = EncodedJob>,
) -> Result<(u64, u64), QueueError> {
    let mut script = scripts::PUSH.prepare_invoke();
    script.key(&keys.base).arg(micros(lease));
    for job in jobs {
        script
            .arg(job.id)
            .arg(job.args)
            .arg(job.group)
            .arg(job.max_attempts)
            .arg(job.delay_us)
            .arg(job.trace);
    }
    redis.call(&script).await
}

pub(crate) fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
