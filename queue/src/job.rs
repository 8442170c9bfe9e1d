//! What a job is, on its way in (`NewJob`) and in the hands of a handler (`JobContext`).

use std::time::{Duration, SystemTime};

use apalis_core::task::{Task, data::MissingDataError, from_request::FromRequest};
use serde::{Serialize, de::DeserializeOwned};

use crate::QueueError;

/// No delay is longer: ten years.
pub(crate) const LONGEST_DELAY: Duration = Duration::from_secs(10 * 366 * 86_400);

/// The arguments of a job, and the queue they go to. Stored as JSON: put ids in, not content.
pub trait Job: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Name of the queue, unique within one prefix: without braces and control characters, and not
    /// `registry`.
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
    /// A job that is ready at once. The id is what pushes are de-duplicated by: derive it from
    /// what is to be done. 1 to 256 bytes without control characters.
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

    /// Ready after this time, kept to the millisecond. At most 10 years.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay.min(LONGEST_DELAY);
        self
    }

    /// Ready at this time. It is turned into a delay by the clock of this machine, and the delay
    /// is measured by the clock of Redis, so a clock that is wrong but steady does no harm.
    #[must_use]
    pub fn at(self, time: SystemTime) -> Self {
        let delay = time.duration_since(SystemTime::now()).unwrap_or_default();
        self.after(delay)
    }

    /// Jobs of one group take turns with other groups and share the group's limit.
    /// 1 to 256 bytes without control characters.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Attempts of this job, instead of the queue's setting. At least 1.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(attempts.max(1));
        self
    }

    /// Trace context to be carried along: a W3C `traceparent`. Empty or longer than 256 bytes
    /// counts as none.
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

/// What a push found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// The job is new, or was done, dead or lost, and is now ready or scheduled.
    Queued,
    /// A job of this id was ready, scheduled or running. See [`Queue::push`](crate::Queue::push).
    Known,
}

/// What [`Queue::push_many`](crate::Queue::push_many) found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PushedCount {
    /// Jobs that became ready or scheduled.
    pub queued: u64,
    /// Jobs that were ready, scheduled or running already.
    pub known: u64,
}

/// What a handler may know about the run it is. Taken as an argument of the handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobContext {
    /// Id of the job.
    pub id: String,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// After this many attempts the job is dead.
    pub max_attempts: u32,
    /// How many runs of this job ended with their worker.
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
