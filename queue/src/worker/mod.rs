//! The worker side of a queue: the state shared by the parts of an Apalis worker.
//!
//! - `backend`: polled by Apalis; waits for a wake-up when there is nothing to do
//! - `persistence`: fetches jobs and releases buffered ones
//! - `layer`: runs a job, catches panics, determines the outcome
//! - `acks`: reports outcomes to Redis in batches
//! - `lease_renewer`: renews leases, reclaims those of dead workers, repairs keys, sends the heartbeat
//! - `claims`: the jobs that this worker holds
//!
//! `acks` and `lease_renewer` are separate tasks, because Apalis polls a backend only between jobs, and a lease must
//! not depend on that.

mod acks;
mod backend;
mod claims;
mod layer;
mod lease_renewer;
mod persistence;
mod signal;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use futures::task::AtomicWaker;
use redis::{FromRedisValue, ScriptInvocation};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{acks::Ack, claims::Claims, signal::Signal};
pub use self::{
    backend::Backend,
    layer::{OutcomeLayer, OutcomeService},
};
use crate::{Redis, Settings, keys::Keys};

/// For how long outcomes are still reported to Redis after a worker has ended. Leases that could not be released by
/// then expire.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(1);

/// The identity of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerIdentity {
    /// A recognizable name. It need not be unique.
    pub name: String,
    /// The host it runs on.
    pub host: String,
    /// How many jobs it runs concurrently. At least 1.
    pub concurrency: usize,
}

impl WorkerIdentity {
    /// A worker `name` on this host, whose name is taken from `/etc/hostname` or `HOSTNAME`.
    #[must_use]
    pub fn new(name: impl Into<String>, concurrency: usize) -> Self {
        let host = std::fs::read_to_string("/etc/hostname")
            .ok()
            .map(|host| host.trim().to_owned())
            .filter(|host| !host.is_empty())
            .or_else(|| std::env::var("HOSTNAME").ok());
        Self {
            name: name.into(),
            host: host.unwrap_or_else(|| "unknown".to_owned()),
            concurrency,
        }
    }
}

/// The state shared by the parts of a worker. Outlives the worker until everything is reported to Redis.
#[derive(Debug)]
pub(crate) struct WorkerState {
    redis: Redis,
    keys: Keys,
    settings: Arc<Settings>,
    identity: WorkerIdentity,
    /// Unique per start of a worker: the owner of its leases.
    name: String,
    queue: &'static str,
    started_at: SystemTime,
    claims: Claims,
    signal: Signal,
    /// Running handlers in regular slots.
    running: AtomicUsize,
    /// Running handlers in slow slots.
    slow: AtomicUsize,
    /// Woken when a slot becomes free.
    slot: AtomicWaker,
    /// How long an idle worker may sleep, in microseconds.
    sleep_us: AtomicU64,
    fetches: AtomicU64,
    /// Tasks that must end before everything is reported to Redis.
    tasks: TaskTracker,
    closed: CancellationToken,
    closed_at: Mutex<Option<Instant>>,
}

impl WorkerState {
    fn free_slots(&self) -> usize {
        let running = self.running.load(Ordering::Acquire);
        self.identity.concurrency.saturating_sub(running)
    }

    /// Number of slots for long-running jobs, in addition to the concurrency.
    fn slow_slots(&self) -> usize {
        self.settings.slow_slots(self.identity.concurrency)
    }

    fn free_slow_slots(&self) -> usize {
        let slow = self.slow.load(Ordering::Acquire);
        self.slow_slots().saturating_sub(slow)
    }

    /// Maximum number of claims of this worker, including those waiting for their acknowledgement.
    fn room(&self) -> usize {
        self.identity
            .concurrency
            .saturating_mul(4)
            .saturating_add(self.slow_slots())
            .saturating_add(256)
    }

    fn close(&self) {
        let mut closed_at = self
            .closed_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if closed_at.is_none() {
            *closed_at = Some(Instant::now());
            self.tasks.close();
            self.redis.settling(self.tasks.clone());
            self.closed.cancel();
        }
    }

    fn is_out_of_patience(&self) -> bool {
        let closed_at = self
            .closed_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        closed_at.is_some_and(|at| at.elapsed() > SHUTDOWN_TIMEOUT)
    }

    /// Runs a script, retrying until Redis responds, because an error that reached Apalis would end the worker. Returns
    /// `None` only when the worker has ended and [`SHUTDOWN_TIMEOUT`] is over.
    async fn run_until_answered<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Option<T> {
        let mut wait = Duration::from_millis(20);
        let mut failed = false;
        loop {
            match self.redis.call(script).await {
                Ok(answer) => {
                    // Only a caller that failed can report the recovery; others may never have failed.
                    if failed {
                        self.redis.note_recovery();
                        // Wake-ups may have been missed in the meantime.
                        self.signal.raise();
                    }
                    return Some(answer);
                }
                Err(error) => self.redis.note_failure(&error),
            }
            failed = true;
            if self.is_out_of_patience() {
                return None;
            }
            sleep(wait).await;
            wait = (wait * 2).min(MAX_RETRY_DELAY);
        }
    }
}

/// A handle that keeps the worker alive. When the last one is dropped, the tasks finish what they have and end.
#[derive(Debug)]
pub(crate) struct WorkerHandle {
    state: Arc<WorkerState>,
    acks: UnboundedSender<Ack>,
    /// Taken by the acknowledging task when the worker registers.
    waiting_acks: Mutex<Option<UnboundedReceiver<Ack>>>,
}

impl WorkerHandle {
    fn new(
        redis: Redis,
        keys: Keys,
        settings: Arc<Settings>,
        mut identity: WorkerIdentity,
        queue: &'static str,
    ) -> Self {
        identity.concurrency = identity.concurrency.max(1);
        let (acks, waiting_acks) = unbounded_channel();
        let state = WorkerState {
            name: format!("{}-{}", identity.name, ulid::Ulid::generate()),
            redis,
            keys,
            settings,
            identity,
            queue,
            started_at: SystemTime::now(),
            claims: Claims::default(),
            signal: Signal::default(),
            running: AtomicUsize::new(0),
            slow: AtomicUsize::new(0),
            slot: AtomicWaker::new(),
            sleep_us: AtomicU64::new(0),
            fetches: AtomicU64::new(0),
            tasks: TaskTracker::new(),
            closed: CancellationToken::new(),
            closed_at: Mutex::new(None),
        };
        Self {
            state: Arc::new(state),
            acks,
            waiting_acks: Mutex::new(Some(waiting_acks)),
        }
    }

    /// Starts the tasks of the worker, on the first call only.
    fn start(&self) {
        let waiting = self
            .waiting_acks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(waiting) = waiting {
            let state = &self.state;
            state.tasks.spawn(acks::send(state.clone(), waiting));
            state.tasks.spawn(lease_renewer::renew(state.clone()));
            tokio::spawn(signal::listen(self.state.clone()));
        }
    }

    /// Never fails while the worker lives: the receiver is in `waiting_acks` or in its task.
    fn acknowledge(&self, ack: Ack) {
        if self.acks.send(ack).is_err() {
            tracing::debug!("an acknowledgement came after shutdown; the lease will expire");
        }
    }
}

impl Drop for WorkerHandle {
    fn drop(&mut self) {
        self.state.close();
    }
}
