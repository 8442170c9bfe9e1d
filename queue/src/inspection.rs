//! What an inspector sees.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use redis::{FromRedisValue, RedisResult};
use serde::Serialize;
use serde_json::Value;

/// Where a job is. A crash of Redis's clients leaves every job in exactly one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Waiting for a slot. Put there by a push, by its due time, or back by a worker that ended.
    Ready,
    /// Waiting for its time: a delay, or the backoff after a failure.
    Scheduled,
    /// Under the lease of a worker. If the worker dies, ready again when the lease has run out.
    Running,
    /// Ended well. Kept up to the queue's `keep_done`.
    Done,
    /// Out of attempts, aborted, or fatal to too many workers. Kept up to the queue's `keep_dead`.
    Dead,
}

impl JobState {
    /// The name of the state in small letters.
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

/// The figures of one queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QueueStats {
    /// Jobs that wait for a slot.
    pub ready: u64,
    /// Jobs that wait for their time.
    pub scheduled: u64,
    /// Jobs under a lease, begun or about to be.
    pub running: u64,
    /// Dead jobs that are kept.
    pub dead: u64,
    /// Done jobs that are kept.
    pub done_kept: u64,
    /// Jobs done since the queue exists.
    pub done_total: u64,
    /// Attempts failed since the queue exists.
    pub failed_total: u64,
    /// How long the oldest ready job has been ready.
    pub oldest_ready_age: Option<Duration>,
    /// Whether the queue is paused.
    pub paused: bool,
    /// When the next scheduled job is due.
    pub next_scheduled_at: Option<SystemTime>,
}

/// What ended in one minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct MinuteCount {
    /// The beginning of the minute.
    pub minute: SystemTime,
    /// Jobs done.
    pub done: u64,
    /// Attempts failed.
    pub failed: u64,
}

impl MinuteCount {
    /// Reads the answer of `minutes.lua`.
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

/// The memory of Redis, in bytes (Redis, «INFO», section memory).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct MemoryUse {
    /// Used by data and Redis itself.
    pub used: u64,
    /// `maxmemory`; zero: no limit but the machine's.
    pub limit: u64,
}

impl MemoryUse {
    /// Reads the answer of one node, or sums up those of several.
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

/// The eviction policies in the answer of one node or several to `INFO memory`.
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

/// A worker as it described itself with its last beat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WorkerInfo {
    /// Unique name: the identity's name and a random ending.
    pub name: String,
    /// The machine it runs on.
    pub host: String,
    /// The queues it works on.
    pub queues: Vec<String>,
    /// How many jobs it runs at once.
    pub concurrency: usize,
    /// The jobs it held at its last heartbeat, at most 1,024.
    pub running: Vec<RunningJob>,
    /// How many of them hold a slow slot, and none of the concurrency.
    pub slow: usize,
    /// When it started, by its own clock.
    pub started_at: SystemTime,
    /// When it last said that it lives, by the clock of Redis.
    pub last_beat: SystemTime,
}

impl WorkerInfo {
    /// How many jobs of its concurrency it runs.
    #[must_use]
    pub fn busy(&self) -> usize {
        self.running.len().saturating_sub(self.slow)
    }
}

/// A job in the hands of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RunningJob {
    /// Id of the job.
    pub id: String,
    /// When the worker took it, by the worker's clock.
    pub since: SystemTime,
}

/// All there is to know about a job. Times are of Redis's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JobInfo {
    /// Id of the job.
    pub id: String,
    /// Where it is.
    pub state: JobState,
    /// Its arguments; `null` if they are not JSON.
    pub args: Value,
    /// Attempts that failed.
    pub attempts: u32,
    /// After this many failed attempts it is dead.
    pub max_attempts: u32,
    /// Runs that ended with their worker.
    pub crashes: u32,
    /// Why it failed, or was put off, last.
    pub last_error: Option<String>,
    /// Its group.
    pub group: Option<String>,
    /// The `traceparent` given at the push.
    pub trace: Option<String>,
    /// When it was pushed.
    pub created_at: SystemTime,
    /// When it is due, if it is scheduled.
    pub run_at: Option<SystemTime>,
    /// When its last run began.
    pub started_at: Option<SystemTime>,
    /// When it was done or dead.
    pub finished_at: Option<SystemTime>,
    /// The worker that has it, if it is running.
    pub owner: Option<String>,
}

/// Microseconds since 1970 as text.
pub(crate) fn time(us: &str) -> Option<SystemTime> {
    Some(UNIX_EPOCH + Duration::from_micros(us.parse().ok()?))
}
