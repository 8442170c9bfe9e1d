//! The types returned by an inspector.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use redis::{FromRedisValue, RedisResult};
use serde::Serialize;
use serde_json::Value;

/// The state of a job. After a crash of any client, every job is in exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Waiting for a slot: after a push, when its due time comes, or after its worker ended.
    Ready,
    /// Waiting for its due time: a delay, or the backoff after a failure.
    Scheduled,
    /// Under the lease of a worker. If the worker dies, the job becomes ready again when the lease expires.
    Running,
    /// Completed successfully. Kept up to the queue's `keep_done`.
    Done,
    /// Out of attempts, aborted, or crashed too many workers. Kept up to the queue's `keep_dead`.
    Dead,
}

impl JobState {
    /// The name of the state in lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Scheduled => "scheduled",
            Self::Running => "running",
            Self::Done => "done",
            Self::Dead => "dead",
        }
    }

    pub(crate) fn read(name: &str) -> Self {
        match name {
            "scheduled" => Self::Scheduled,
            "running" => Self::Running,
            "done" => Self::Done,
            "dead" => Self::Dead,
            _ => Self::Ready,
        }
    }
}

/// Statistics of one queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueueStats {
    /// Jobs waiting for a slot.
    pub ready: u64,
    /// Jobs waiting for their due time.
    pub scheduled: u64,
    /// Jobs under a lease, started or about to be.
    pub running: u64,
    /// Dead jobs that are kept.
    pub dead: u64,
    /// Done jobs that are kept.
    pub done_kept: u64,
    /// Jobs done since the queue was created.
    pub done_total: u64,
    /// Failed attempts since the queue was created.
    pub failed_total: u64,
    /// How long the oldest ready job has been ready.
    pub oldest_ready_age: Option<Duration>,
    /// Whether the queue is paused.
    pub paused: bool,
    /// When the next scheduled job is due.
    pub next_scheduled_at: Option<SystemTime>,
}

/// Jobs that ended in one minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MinuteCount {
    /// The start of the minute.
    pub minute: SystemTime,
    /// Jobs done.
    pub done: u64,
    /// Failed attempts.
    pub failed: u64,
}

impl MinuteCount {
    /// Parses the reply of `minutes.lua`.
    pub(crate) fn read(reply: Vec<redis::Value>, minutes: u64) -> RedisResult<Vec<Self>> {
        let mut reply = reply.into_iter();
        let now = reply.next().map_or(Ok(0), u64::from_redis_value)?;
        let mut counts = HashMap::new();
        for hour in reply {
            counts.extend(HashMap::<String, u64>::from_redis_value(hour)?);
        }
        let count = |name: String| counts.get(&name).copied().unwrap_or(0);
        let minutes = (now + 1).saturating_sub(minutes)..=now;
        Ok(minutes
            .map(|minute| Self {
                minute: UNIX_EPOCH + Duration::from_secs(minute * 60),
                done: count(format!("{minute}d")),
                failed: count(format!("{minute}f")),
            })
            .collect())
    }
}

/// The memory of Redis, in bytes (Redis, "INFO", section memory).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct MemoryUse {
    /// Used by data and by Redis itself.
    pub used: u64,
    /// `maxmemory`; zero means unlimited.
    pub limit: u64,
}

impl MemoryUse {
    /// Parses the reply of one node, or adds up those of several.
    pub(crate) fn read(reply: &redis::Value) -> Self {
        match reply {
            redis::Value::Map(nodes) => nodes.iter().fold(Self::default(), |sum, (_, node)| {
                let node = Self::read(node);
                Self {
                    used: sum.used + node.used,
                    limit: sum.limit + node.limit,
                }
            }),
            reply => {
                let text = String::from_redis_value_ref(reply).unwrap_or_default();
                let field = |name: &str| {
                    let mut lines = text.lines();
                    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
                    value
                        .and_then(|value| value.trim().parse().ok())
                        .unwrap_or(0)
                };
                Self {
                    used: field("used_memory"),
                    limit: field("maxmemory"),
                }
            }
        }
    }
}

/// Parses the eviction policies from the `INFO memory` replies of one or several nodes.
pub(crate) fn eviction_policies(reply: &redis::Value) -> BTreeSet<String> {
    match reply {
        redis::Value::Map(nodes) => nodes
            .iter()
            .flat_map(|(_, node)| eviction_policies(node))
            .collect(),
        reply => {
            let text = String::from_redis_value_ref(reply).unwrap_or_default();
            let policies = text
                .lines()
                .filter_map(|line| line.strip_prefix("maxmemory_policy:"));
            policies.map(|policy| policy.trim().to_owned()).collect()
        }
    }
}

/// A worker, as described by its last heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WorkerInfo {
    /// Unique name: the identity's name and a random suffix.
    pub name: String,
    /// The host it runs on.
    pub host: String,
    /// The queues it works on.
    pub queues: Vec<String>,
    /// How many jobs it runs concurrently.
    pub concurrency: usize,
    /// The jobs it held at its last heartbeat, at most 1,024.
    pub running: Vec<RunningJob>,
    /// How many of them are in a slow slot, and so do not count towards the concurrency.
    pub slow: usize,
    /// When it started, by its own clock.
    pub started_at: SystemTime,
    /// Its last heartbeat, by the clock of Redis.
    pub last_beat: SystemTime,
}

impl WorkerInfo {
    /// How many jobs it runs that count towards its concurrency.
    #[must_use]
    pub fn busy(&self) -> usize {
        self.running.len().saturating_sub(self.slow)
    }
}

/// A job held by a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunningJob {
    /// Id of the job.
    pub id: String,
    /// When the worker fetched it, by the worker's clock.
    pub since: SystemTime,
}

/// All details of a job. Times are by the clock of Redis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobInfo {
    /// Id of the job.
    pub id: String,
    /// Its state.
    pub state: JobState,
    /// Its arguments; `null` if they are not JSON.
    pub args: Value,
    /// Failed attempts.
    pub attempts: u32,
    /// After this many failed attempts the job is dead.
    pub max_attempts: u32,
    /// Runs that ended because their worker died.
    pub crashes: u32,
    /// Why it last failed or was rescheduled.
    pub last_error: Option<String>,
    /// Its group.
    pub group: Option<String>,
    /// The `traceparent` given at the push.
    pub trace: Option<String>,
    /// When it was pushed.
    pub created_at: SystemTime,
    /// When it is due, if scheduled.
    pub run_at: Option<SystemTime>,
    /// When its last run started.
    pub started_at: Option<SystemTime>,
    /// When it became done or dead.
    pub finished_at: Option<SystemTime>,
    /// The worker that holds it, if it is running.
    pub owner: Option<String>,
}

/// Parses microseconds since the Unix epoch.
pub(crate) fn time(us: &str) -> Option<SystemTime> {
    Some(UNIX_EPOCH + Duration::from_micros(us.parse().ok()?))
}
