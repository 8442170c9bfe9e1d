//! The side of a queue that works: what one Apalis worker shares among its parts.
//!
//! - `backend`: what Apalis polls; waits for a wake-up when there is nothing to do
//! - `persistence`: takes jobs and gives back what was buffered
//! - `layer`: runs a job, catches panics, judges the outcome
//! - `acks`: tells Redis how runs ended, many at once
//! - `lease_renewer`: renews leases, takes back those of dead workers, repairs, sends the heartbeat
//! - `claims`: which jobs this worker holds
//!
//! `acks` and `lease_renewer` are tasks of their own: Apalis polls a backend only between jobs, and a
//! lease must not depend on that.

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

/// After the end of its worker, what is left to say to Redis is tried for this long. Leases that
/// could not be given back by then run out.
const PATIENCE: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Who a worker is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerIdentity {
    /// A name people recognise. It need not be unique.
    pub name: String,
    /// The machine it runs on.
    pub host: String,
    /// How many jobs it runs at once. At least 1.
    pub concurrency: usize,
}

impl WorkerIdentity {
    /// A worker `name` on this machine: the host is taken from `/etc/hostname` or `HOSTNAME`.
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

/// What the parts of one worker share. Outlives the worker until everything is said to Redis.
#[derive(Debug)]
pub(crate) struct Core {
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
    /// Handlers at work that hold a slot.
    running: AtomicUsize,
    /// Handlers at work that hold a slow slot.
    slow: AtomicUsize,
    /// Woken when a slot becomes free.
    slot: AtomicWaker,
    /// How long an idle worker may sleep, in microseconds.
    nap_us: AtomicU64,
    fetches: AtomicU64,
    /// What must come to its end before Redis knows all there is to know.
    tasks: TaskTracker,
    closed: CancellationToken,
    closed_at: Mutex<Option<Instant>>,
}

impl Core {
    fn free_slots(&self) -> usize {
        let running = self.running.load(Ordering::Acquire);
        self.identity.concurrency.saturating_sub(running)
    }

    /// Slots for jobs that have been running for long, beside those of the concurrency.
    fn slow_slots(&self) -> usize {
        self.settings.slow_slots(self.identity.concurrency)
    }

    fn free_slow_slots(&self) -> usize {
        let slow = self.slow.load(Ordering::Acquire);
        self.slow_slots().saturating_sub(slow)
    }

    /// Claims this worker may hold, running or waiting for their acknowledgement to be taken.
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
        closed_at.is_some_and(|at| at.elapsed() > PATIENCE)
    }

    /// Runs a script until Redis answers it: an error that reached Apalis would end the worker.
    /// `None` only after the worker has ended and patience with it.
    async fn insist<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Option<T> {
        let mut wait = Duration::from_millis(20);
        let mut failed = false;
        loop {
            match self.redis.call(script).await {
                Ok(answer) => {
                    // Only what failed can tell that it works again: others may never have failed.
                    if failed {
                        self.redis.note_recovery();
                        // Wake-ups may have been missed meanwhile.
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
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }
}

/// A worker's live half: as long as somebody holds it, the worker is there. Dropping the last one
/// lets the tasks finish what they have and end.
#[derive(Debug)]
pub(crate) struct Engine {
    core: Arc<Core>,
    acks: UnboundedSender<Ack>,
    /// Taken by the acknowledging task when the worker registers.
    waiting_acks: Mutex<Option<UnboundedReceiver<Ack>>>,
}

impl Engine {
    fn new(
        redis: Redis,
        keys: Keys,
        settings: Arc<Settings>,
        mut identity: WorkerIdentity,
        queue: &'static str,
    ) -> Self {
        identity.concurrency = identity.concurrency.max(1);
        let (acks, waiting_acks) = unbounded_channel();
        let core = Core {
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
            nap_us: AtomicU64::new(0),
            fetches: AtomicU64::new(0),
            tasks: TaskTracker::new(),
            closed: CancellationToken::new(),
            closed_at: Mutex::new(None),
        };
        Self {
            core: Arc::new(core),
            acks,
            waiting_acks: Mutex::new(Some(waiting_acks)),
        }
    }

    /// Starts the tasks of the worker. The first call does, others do nothing.
    fn start(&self) {
        let waiting = self
            .waiting_acks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(waiting) = waiting {
            let core = &self.core;
            core.tasks.spawn(acks::send(core.clone(), waiting));
            core.tasks.spawn(lease_renewer::renew(core.clone()));
            tokio::spawn(signal::listen(self.core.clone()));
        }
    }

    /// Never fails while the worker lives: the receiver is in `waiting_acks` or in its task.
    fn acknowledge(&self, ack: Ack) {
        if self.acks.send(ack).is_err() {
            tracing::debug!("an acknowledgement came after the end; the lease runs out");
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.core.close();
    }
}
