//! Jobs as pushed (`NewJob`) and as passed to a handler (`JobContext`).

use std::time::{Duration, SystemTime};

use apalis_core::task::{Task, data::MissingDataError, from_request::FromRequest};
use serde::{Serialize, de::DeserializeOwned};

use crate::QueueError;

/// Maximum delay: ten years.
pub(crate) const MAX_DELAY: Duration = Duration::from_secs(10 * 366 * 86_400);

/// The arguments of a job, and the queue they go to. Stored as JSON: use ids, not content.
pub trait Job: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Name of the queue, unique within a prefix: without braces and control characters, and not `registry`.
    const QUEUE: &'static str;
}

/// A job to be pushed.
#[derive(Debug, Clone)]
pub struct NewJob<J> {
    pub(crate) id: String,
    pub(crate) args: J,
    pub(crate) delay: Duration,
    pub(crate) group: Option<String>,
    pub(crate) max_attempts: Option<u32>,
    pub(crate) trace: Option<String>,
}

impl<J: Job> NewJob<J> {
    /// Creates a job that is ready at once. Pushes are deduplicated by id, so derive it from what is to be done. 1 to
    /// 256 bytes without control characters.
    pub fn new(id: impl Into<String>, args: J) -> Self {
        Self {
            id: id.into(),
            args,
            delay: Duration::ZERO,
            group: None,
            max_attempts: None,
            trace: None,
        }
    }

    /// Makes the job ready after this delay, precise to the millisecond. At most 10 years.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay.min(MAX_DELAY);
        self
    }

    /// Makes the job ready at this time. The time is converted to a delay with this machine's clock, and the delay is
    /// measured with the clock of Redis, so a wrong but steady clock does no harm.
    #[must_use]
    pub fn at(self, time: SystemTime) -> Self {
        let delay = time.duration_since(SystemTime::now()).unwrap_or_default();
        self.after(delay)
    }

    /// Assigns the job to a group. Groups take turns, and their jobs share the group's limit. 1 to 256 bytes without
    /// control characters.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Sets the number of attempts, overriding the queue's setting. At least 1.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts.max(1));
        self
    }

    /// Sets the trace context to be passed on: a W3C `traceparent`. An empty one, or one longer than 256 bytes, is
    /// ignored.
    #[must_use]
    pub fn trace(mut self, traceparent: impl Into<Option<String>>) -> Self {
        self.trace = traceparent
            .into()
            .filter(|trace| !trace.is_empty() && trace.len() <= 256);
        self
    }

    pub(crate) fn check(&self) -> Result<(), QueueError> {
        if !is_name(&self.id) {
            return Err(QueueError::InvalidId);
        }
        self.group.as_deref().map_or(Ok(()), check_group)
    }
}

pub(crate) fn check_group(group: &str) -> Result<(), QueueError> {
    if is_name(group) {
        Ok(())
    } else {
        Err(QueueError::InvalidGroup)
    }
}

fn is_name(name: &str) -> bool {
    (1..=256).contains(&name.len()) && !name.chars().any(char::is_control)
}

/// The outcome of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushOutcome {
    /// The job is new, or was done, dead or lost, and is now ready or scheduled.
    Queued,
    /// A job with this id was ready, scheduled or running. See [`Queue::push`](crate::Queue::push).
    AlreadyQueued,
}

/// The outcome of [`Queue::push_many`](crate::Queue::push_many).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PushCounts {
    /// Jobs that became ready or scheduled.
    pub queued: u64,
    /// Jobs that were already ready, scheduled or running.
    pub already_queued: u64,
}

/// Information about a run, available as an argument of the handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobContext {
    /// Id of the job.
    pub id: String,
    /// The number of this attempt, from 1.
    pub attempt: u32,
    /// After this many attempts the job is dead.
    pub max_attempts: u32,
    /// How many runs of this job ended because their worker died.
    pub crashes: u32,
    /// The `traceparent` given at the push.
    pub trace: Option<String>,
    /// The group given at the push.
    pub group: Option<String>,
    /// When the job was pushed, by the clock of Redis.
    pub enqueued_at: SystemTime,
}

impl<Args: Sync> FromRequest<Task<Args>> for JobContext {
    type Error = MissingDataError;

    async fn from_request(task: &Task<Args>) -> Result<Self, Self::Error> {
        task.data().get_checked::<Self>().cloned()
    }
}
