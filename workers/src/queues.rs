//! The three queues, configured from the settings.

use crate::jobs::{DeliverJob, FinalizeJob, MaintenanceJob};
use landfall_core::config::Config;
use landfall_queue::{Backoff, Job, Queue, Redis, Settings};
use std::{str::FromStr, time::Duration};

/// The channel on which the ids of files that have become final are published.
pub const SETTLED: &str = "settled";

/// How many done jobs are kept for the dashboard; their results are in the database.
const KEEP_DONE: usize = 500;

/// A job that fails this often has an error that no retry fixes. The sweep pushes it again as long as the database
/// requires it.
const MAX_ATTEMPTS: u32 = 25;

/// After this long without a response, a delivery moves to a slow slot …
const SLOW_AFTER: Duration = Duration::from_millis(250);

/// … of which there are this many per regular slot; these deliveries only wait, and cost a connection each.
const SLOW_DELIVERIES_PER_SLOT: usize = 8;

/// The queues of an installation; cheap to clone.
#[derive(Clone, Debug)]
pub struct Queues {
    pub finalize: Queue<FinalizeJob>,
    pub deliver: Queue<DeliverJob>,
    pub maintenance: Queue<MaintenanceJob>,
    pub redis: Redis,
}

impl Queues {
    /// Sends nothing yet.
    #[must_use]
    pub fn new(redis: Redis, config: &Config) -> Self {
        let settings = || {
            Settings::new()
                .lease(config.workers.lease)
                .max_attempts(MAX_ATTEMPTS)
                .keep_done(KEEP_DONE)
                .backoff(Backoff::new(
                    Duration::from_secs(1),
                    Duration::from_secs(300),
                ))
        };
        Self {
            finalize: Queue::new(redis.clone(), settings()),
            deliver: Queue::new(
                redis.clone(),
                settings()
                    .group_limit(config.webhooks.endpoint_concurrency)
                    .slow_jobs(SLOW_AFTER, SLOW_DELIVERIES_PER_SLOT),
            ),
            maintenance: Queue::new(redis.clone(), settings()),
            redis,
        }
    }
}

/// The queues a worker can work on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QueueName {
    Finalize,
    Deliver,
    Maintenance,
}

impl QueueName {
    /// All queues.
    pub const ALL: [Self; 3] = [Self::Finalize, Self::Deliver, Self::Maintenance];

    /// The name in Redis and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Finalize => FinalizeJob::QUEUE,
            Self::Deliver => DeliverJob::QUEUE,
            Self::Maintenance => MaintenanceJob::QUEUE,
        }
    }
}

impl FromStr for QueueName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|name| name.as_str() == text)
            .ok_or_else(|| {
                format!("there is no queue `{text}`; allowed are finalize, deliver and maintenance")
            })
    }
}
