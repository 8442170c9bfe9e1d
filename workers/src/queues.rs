//! The three queues, set up from the configuration.

use crate::jobs::{DeliverJob, FinalizeJob, MaintenanceJob};
use landfall_core::config::Config;
use landfall_queue::{Backoff, Job, Queue, Redis, Settings};
use std::{str::FromStr, time::Duration};

/// The channel on which the ids of files are published that have become final.
pub const SETTLED: &str = "settled";

/// Done jobs kept for the dashboard; what they did is in the database.
const KEEP_DONE: usize = 500;

/// A job that fails so often has met something no retry fixes; the sweep pushes it again as long as the database says so.
const MAX_ATTEMPTS: u32 = 25;

/// A delivery that has waited so long for its response gives its slot to another one …
const SLOW_AFTER: Duration = Duration::from_millis(250);

/// … as long as no more than so many for each slot do; they wait, and cost a connection each.
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

/// Which queue a worker works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QueueName {
    Finalize,
    Deliver,
    Maintenance,
}

impl QueueName {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Finalize, Self::Deliver, Self::Maintenance];

    /// As in Redis and on the command line.
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
