//! The side of a queue that pushes, and the door to the side that works.

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
    Backend, Job, NewJob, Pushed, PushedCount, QueueError, Redis, Settings, WorkerIdentity,
    job::check_group, keys::Keys, scripts,
};

/// Jobs sent to Redis in one script run; bounds how long others wait for Redis meanwhile.
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
    /// A queue in `redis`. Nothing is sent yet. A name that cannot be used does not compile.
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

    /// The Redis this queue lives in.
    #[must_use]
    pub fn redis(&self) -> &Redis {
        &self.redis
    }

    /// Pushes a job.
    ///
    /// A job of the same id that is
    /// - done, dead or unknown: is pushed as new ([`Pushed::Queued`]);
    /// - ready: stays ready;
    /// - scheduled (also for a retry): is brought forward if the new time is earlier;
    /// - running: runs once more after it is done, at the new time, with the new arguments. What
    ///   the running handler has read may be older than this push. If the run fails, its retry
    ///   stands for the push, and comes no later than the push asked for.
    ///
    /// The last three answer [`Pushed::Known`]. Redis may have lost any key of such a job: the push puts it back where
    /// a job of its state must be.
    ///
    /// # Errors
    /// [`QueueError::InvalidId`], [`QueueError::InvalidGroup`] or [`QueueError::Encode`] before
    /// anything is sent; [`QueueError::Redis`] or [`QueueError::Timeout`], after which the job may
    /// or may not have been pushed: push it again.
    pub async fn push(&self, job: NewJob<J>) -> Result<Pushed, QueueError> {
        let count = self.push_many([job]).await?;
        Ok(if count.queued == 1 {
            Pushed::Queued
        } else {
            Pushed::Known
        })
    }

    /// Pushes many jobs, 500 per round trip. See [`Queue::push`].
    ///
    /// # Errors
    /// As [`Queue::push`]. Round trips before the one that failed have been carried out; pushing
    /// all jobs again is harmless.
    pub async fn push_many(
        &self,
        jobs: impl IntoIterator<Item = NewJob<J>>,
    ) -> Result<PushedCount, QueueError> {
        let mut total = PushedCount::default();
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

    fn encode(&self, job: NewJob<J>) -> Result<Encoded, QueueError> {
        Ok(Encoded {
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
        page: &mut Vec<Encoded>,
        total: &mut PushedCount,
    ) -> Result<(), QueueError> {
        if page.is_empty() {
            return Ok(());
        }
        let (queued, known) =
            push_encoded(&self.redis, &self.keys, self.settings.lease, page.drain(..)).await?;
        total.queued += queued;
        total.known += known;
        self.list().await;
        Ok(())
    }

    /// Makes the queue known to inspectors. Workers do so with every beat, so this once is enough.
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
            tracing::debug!(%error, "the queue could not be listed yet");
        }
    }

    /// Limits how many jobs of `group` run at once in the whole cluster, from now on, whatever the
    /// settings say; `Some(0)` starts none, `None` goes back to the settings. Running jobs go on.
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

    /// Limits these groups as [`Queue::set_group_limit`] does, and takes back the limit of every other group. Redis may
    /// lose limits: whoever knows them sets them again from time to time.
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

    /// The limits that are set, by group.
    ///
    /// # Errors
    /// [`QueueError::Redis`] or [`QueueError::Timeout`].
    pub async fn group_limits(&self) -> Result<BTreeMap<String, u32>, QueueError> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.keys.group_limits());
        self.redis.command(&command).await
    }

    /// The Apalis backend of one worker. Its name in Redis is the identity's name and a random
    /// ending: leases are told apart by it, so it is never used twice.
    #[must_use]
    pub fn backend(&self, worker: WorkerIdentity) -> Backend<J> {
        Backend::new(
            self.redis.clone(),
            self.keys.clone(),
            self.settings.clone(),
            worker,
        )
    }

    /// A builder of an Apalis worker on this queue, named as the backend is. Add `data`, layers
    /// and the handler, and run it in a `Monitor` with [`run`](crate::run).
    ///
    /// Do not add `concurrency` (the identity has it), `retry` (it would sleep in a slot) or
    /// `catch_panic` (it would make a panicking job dead at once).
    #[must_use]
    pub fn worker(&self, worker: WorkerIdentity) -> WorkerBuilder<J, Backend<J>, Identity> {
        let backend = self.backend(worker);
        WorkerBuilder::new(backend.worker_name()).backend(backend)
    }
}

/// Braces would break the hash tag, and the registry and the limits have tags of their own.
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

pub(crate) struct Encoded {
    pub(crate) id: String,
    pub(crate) args: Vec<u8>,
    pub(crate) group: String,
    pub(crate) max_attempts: u32,
    pub(crate) delay_us: u64,
    pub(crate) trace: String,
}

/// Returns how many were queued and how many known.
pub(crate) async fn push_encoded(
    redis: &Redis,
    keys: &Keys,
    lease: std::time::Duration,
    jobs: impl IntoIterator<Item = Encoded>,
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
