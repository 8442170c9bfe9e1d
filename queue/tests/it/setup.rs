//! A queue of notes that do what their text says, and a log of what ran.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use apalis_core::{
    error::{AbortError, BoxDynError},
    monitor::Monitor,
    task::data::Data,
};
use landfall_queue::{
    Backoff, CancellationToken, Inspector, Job, JobContext, JobInfo, JobState, NewJob, Queue,
    QueueStats, Redis, RetryAfter, Settings, WorkerIdentity,
};
pub(crate) use landfall_test_servers::{RedisServer, wait_until};
use serde::{Deserialize, Serialize};
use tokio::{sync::Semaphore, task::JoinHandle};

/// Longer than anything should take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Note {
    Succeed,
    Fail,
    FailOnce,
    Panic,
    PanicOnce,
    Abort,
    /// Requests a delay the first time.
    RetryOnce {
        ms: u64,
        counts: bool,
    },
    /// The same inside another error.
    RetryWrapped {
        ms: u64,
    },
    /// Runs until the log releases it.
    Hold,
    /// The same, then fails the first time.
    HoldThenFail,
    Sleep {
        ms: u64,
    },
    /// Blocks the thread without yielding.
    Block {
        ms: u64,
    },
}

impl Job for Note {
    const QUEUE: &'static str = "notes";
}

#[derive(Debug, thiserror::Error)]
#[error("the outer error")]
struct Outer(#[source] RetryAfter);

#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) context: JobContext,
    pub(crate) at: Instant,
}

#[derive(Debug, Clone)]
pub(crate) struct Log(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    runs: Mutex<Vec<Run>>,
    seen: Mutex<HashSet<String>>,
    ended: AtomicU64,
    gate: Semaphore,
    /// Running jobs and their maximum, by group.
    live: Mutex<HashMap<String, (usize, usize)>>,
}

impl Log {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Inner {
            runs: Mutex::default(),
            seen: Mutex::default(),
            ended: AtomicU64::new(0),
            gate: Semaphore::new(0),
            live: Mutex::default(),
        }))
    }

    pub(crate) fn runs(&self) -> Vec<Run> {
        self.0.runs.lock().unwrap().clone()
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        self.runs().into_iter().map(|run| run.context.id).collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.0.runs.lock().unwrap().len()
    }

    pub(crate) fn runs_of(&self, id: &str) -> Vec<Run> {
        let mut runs = self.runs();
        runs.retain(|run| run.context.id == id);
        runs
    }

    /// Number of handlers that ran to completion, without being dropped.
    pub(crate) fn ended(&self) -> u64 {
        self.0.ended.load(Ordering::Relaxed)
    }

    /// Lets this many held jobs finish.
    pub(crate) fn release(&self, jobs: usize) {
        self.0.gate.add_permits(jobs);
    }

    pub(crate) fn most_at_once(&self, group: &str) -> usize {
        self.0.live.lock().unwrap().get(group).map_or(0, |l| l.1)
    }

    pub(crate) async fn wait_for(&self, runs: usize) {
        wait_until(SOON, async || {
            let count = self.count();
            (count >= runs).then_some(()).ok_or(format!("{count} runs"))
        })
        .await;
    }

    fn end(&self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }

    fn begin(&self, context: &JobContext) -> (bool, Live) {
        let first = self.0.seen.lock().unwrap().insert(context.id.clone());
        self.0.runs.lock().unwrap().push(Run {
            context: context.clone(),
            at: Instant::now(),
        });
        let group = context.group.clone().unwrap_or_default();
        let mut live = self.0.live.lock().unwrap();
        let entry = live.entry(group.clone()).or_default();
        entry.0 += 1;
        entry.1 = entry.1.max(entry.0);
        let log = self.clone();
        (first, Live { log, group })
    }
}

struct Live {
    log: Log,
    group: String,
}

impl Drop for Live {
    fn drop(&mut self) {
        let mut live = self.log.0.live.lock().unwrap();
        live.entry(self.group.clone()).or_default().0 -= 1;
    }
}

pub(crate) async fn handle(
    note: Note,
    context: JobContext,
    log: Data<Log>,
) -> Result<(), BoxDynError> {
    let (first, _live) = log.begin(&context);
    let result = act(note, first, &log).await;
    log.end();
    result
}

async fn act(note: Note, first: bool, log: &Log) -> Result<(), BoxDynError> {
    match note {
        Note::Fail => return Err("it failed".into()),
        Note::FailOnce if first => return Err("it failed".into()),
        Note::Panic => panic!("it panicked"),
        Note::PanicOnce if first => panic!("it panicked"),
        Note::Abort => return Err(AbortError::new("it is hopeless").into()),
        Note::RetryOnce { ms, counts } if first => {
            return Err(RetryAfter {
                delay: Duration::from_millis(ms),
                reason: "not yet".into(),
                counts,
            }
            .into());
        }
        Note::RetryWrapped { ms } if first => {
            let inner = RetryAfter::not_yet(Duration::from_millis(ms), "not yet");
            return Err(Outer(inner).into());
        }
        Note::Hold => log.0.gate.acquire().await?.forget(),
        Note::HoldThenFail => {
            log.0.gate.acquire().await?.forget();
            if first {
                return Err("it failed".into());
            }
        }
        Note::Sleep { ms } => tokio::time::sleep(Duration::from_millis(ms)).await,
        Note::Block { ms } => std::thread::sleep(Duration::from_millis(ms)),
        _ => {}
    }
    Ok(())
}

/// A prefix of its own in some Redis.
pub(crate) struct Place {
    pub(crate) redis: Redis,
    pub(crate) inspector: Inspector,
    pub(crate) queue: Queue<Note>,
    pub(crate) log: Log,
}

/// Quick retries, a short lease, and polls so far apart that only wake-ups explain promptness.
pub(crate) fn settings() -> Settings {
    Settings::new()
        .lease(Duration::from_secs(2))
        .backoff(Backoff::new(
            Duration::from_millis(5),
            Duration::from_millis(20),
        ))
        .max_attempts(3)
        .poll_interval(Duration::from_secs(60))
}

impl Place {
    /// In the Redis all tests share.
    pub(crate) fn new() -> Self {
        Self::with(settings())
    }

    pub(crate) fn with(settings: Settings) -> Self {
        Self::at(RedisServer::shared(), settings)
    }

    pub(crate) fn at(url: &str, settings: Settings) -> Self {
        let prefix = format!("t{}", ulid::Ulid::generate());
        Self::joining(url, &prefix, settings)
    }

    pub(crate) fn joining(url: &str, prefix: &str, settings: Settings) -> Self {
        let redis = Redis::open(url, prefix).unwrap();
        Self {
            inspector: Inspector::new(redis.clone()),
            queue: Queue::new(redis.clone(), settings),
            redis,
            log: Log::new(),
        }
    }

    pub(crate) async fn push(&self, id: &str, note: Note) {
        self.queue.push(NewJob::new(id, note)).await.unwrap();
    }

    pub(crate) async fn push_grouped(&self, group: &str, ids: std::ops::Range<usize>, note: Note) {
        let jobs = ids.map(|i| NewJob::new(format!("{group}:{i}"), note.clone()).group(group));
        self.queue.push_many(jobs).await.unwrap();
    }

    pub(crate) async fn stats(&self) -> QueueStats {
        self.inspector.stats(Note::QUEUE).await.unwrap()
    }

    pub(crate) async fn job(&self, id: &str) -> Option<JobInfo> {
        self.inspector.job(Note::QUEUE, id).await.unwrap()
    }

    pub(crate) async fn wait_for_state(&self, id: &str, state: JobState) -> JobInfo {
        wait_until(SOON, async || {
            let job = self.inspector.job(Note::QUEUE, id).await;
            match job {
                Ok(Some(job)) if job.state == state => Ok(job),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// Waits until nothing is ready, scheduled or running.
    pub(crate) async fn wait_until_quiet(&self) {
        wait_until(Duration::from_secs(120), async || {
            match self.inspector.stats(Note::QUEUE).await {
                Ok(s) if s.ready + s.scheduled + s.running == 0 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    pub(crate) fn start(&self, concurrency: usize) -> Worker {
        let (queue, log) = (self.queue.clone(), self.log.clone());
        let identity = WorkerIdentity {
            name: "worker".into(),
            host: "here".into(),
            concurrency,
        };
        let monitor = Monitor::new().register(move |_| {
            queue
                .worker(identity.clone())
                .data(log.clone())
                .build(handle)
        });
        let stop = CancellationToken::new();
        let redis = self.redis.clone();
        let token = stop.clone();
        let running = tokio::spawn(async move {
            landfall_queue::run(monitor, &redis, token, Duration::from_millis(300))
                .await
                .unwrap();
        });
        Worker { stop, running }
    }

    /// The running jobs by group, according to Redis.
    pub(crate) async fn slots(&self) -> HashMap<String, u64> {
        slots_at(RedisServer::shared(), self.redis.prefix()).await
    }
}

/// A worker, stopped when dropped.
pub(crate) struct Worker {
    stop: CancellationToken,
    running: JoinHandle<()>,
}

impl Worker {
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(SOON, self.running)
            .await
            .expect("the worker did not stop")
            .unwrap();
    }

    /// Drops the worker without stopping it.
    pub(crate) fn drop_it(self) {
        self.running.abort();
    }
}

/// The running jobs by group, according to the Redis at this address.
pub(crate) async fn slots_at(url: &str, prefix: &str) -> HashMap<String, u64> {
    let base = format!("{prefix}:{{{}}}:slots:", Note::QUEUE);
    let keys = keys_at(url, &base).await;
    let mut slots = HashMap::new();
    for key in keys {
        let count = raw(url, redis::cmd("ZCARD").arg(&key)).await;
        slots.insert(key[base.len()..].to_owned(), count);
    }
    slots.retain(|_, count| *count > 0);
    slots
}

/// The names of all keys with this prefix, in order.
pub(crate) async fn keys_at(url: &str, start: &str) -> Vec<String> {
    let mut keys: Vec<String> = raw(url, redis::cmd("KEYS").arg(format!("{start}*"))).await;
    keys.sort();
    keys
}

pub(crate) async fn raw<T: redis::FromRedisValue>(url: &str, command: &redis::Cmd) -> T {
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    command.query_async(&mut connection).await.unwrap()
}
