//! The settings of a queue and their bounds: a value out of bounds is clamped.

use std::time::Duration;

use rand::RngExt as _;

/// Exponential backoff with full jitter: the delay before attempt `n + 1` is uniformly distributed between zero and
/// `min(max, base * 2^(n - 1))`.
///
/// Full jitter spreads the retries of jobs that failed together; see "Exponential Backoff And Jitter" in the AWS
/// Architecture Blog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    max: Duration,
}

impl Backoff {
    /// `base` bounds the first delay, `max` every delay. A `max` below `base` counts as `base`.
    #[must_use]
    pub fn new(base: Duration, max: Duration) -> Self {
        Self {
            base,
            max: max.max(base),
        }
    }

    /// The maximum delay after the failure of attempt `attempt`, counted from 1.
    #[must_use]
    pub fn ceiling(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        self.base.saturating_mul(1 << doublings).min(self.max)
    }

    /// A random delay between zero and [`Backoff::ceiling`].
    #[must_use]
    pub fn draw(&self, attempt: u32) -> Duration {
        let ceiling = u64::try_from(self.ceiling(attempt).as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(rand::rng().random_range(0..=ceiling))
    }
}

impl Default for Backoff {
    /// One second, at most ten minutes.
    fn default() -> Self {
        Self::new(Duration::from_secs(1), Duration::from_secs(600))
    }
}

/// The settings of a queue. Every process that works on the queue should use the same.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(crate) lease: Duration,
    pub(crate) renew_every: Option<Duration>,
    pub(crate) max_attempts: u32,
    pub(crate) max_crashes: u32,
    pub(crate) backoff: Backoff,
    pub(crate) keep_done: usize,
    pub(crate) keep_dead: usize,
    pub(crate) group_limit: u32,
    pub(crate) fetch_batch: usize,
    pub(crate) poll_interval: Duration,
    pub(crate) slow: Option<SlowJobs>,
}

/// When a job counts as slow, and how many slow ones a worker runs per job of its concurrency.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SlowJobs {
    after: Duration,
    per_slot: usize,
}

/// Minimum number of slow slots of a worker, whatever its concurrency.
const MIN_SLOW_SLOTS: usize = 256;

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            renew_every: None,
            max_attempts: 10,
            max_crashes: 16,
            backoff: Backoff::default(),
            keep_done: 1_000,
            keep_dead: 10_000,
            group_limit: 8,
            fetch_batch: 64,
            poll_interval: Duration::from_secs(5),
            slow: None,
        }
    }
}

/// Maximum interval between two rounds of a worker's lease renewer, so that the jobs of a dead worker are found soon
/// after their lease has expired.
const MAX_ROUND_INTERVAL: Duration = Duration::from_millis(2_500);

impl Settings {
    /// The defaults: lease 30 s, 10 attempts, 1,000 done and 10,000 dead jobs kept.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How long a claim lasts without renewal. 1 s to 1 h, by default 30 s.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease.clamp(Duration::from_secs(1), Duration::from_secs(3_600));
        self
    }

    /// Maximum interval between renewals of leases. 100 ms to a third of the lease, by default a third.
    #[must_use]
    pub fn renew_every(mut self, every: Duration) -> Self {
        self.renew_every = Some(every.max(Duration::from_millis(100)));
        self
    }

    /// How many attempts a job has before it is dead. 1 to 100,000, by default 10; can be overridden per job. Runs that
    /// ended because their worker died are crashes, not attempts.
    #[must_use]
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts.clamp(1, 100_000);
        self
    }

    /// How many workers a job may crash before it is dead. 1 to 1,000, by default 16.
    #[must_use]
    pub fn max_crashes(mut self, crashes: u32) -> Self {
        self.max_crashes = crashes.clamp(1, 1_000);
        self
    }

    /// The retry delay of failed jobs. By default 1 s doubling to 10 min, with full jitter.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// How many done jobs are kept for inspection. 0 to 1,000,000, by default 1,000.
    #[must_use]
    pub fn keep_done(mut self, jobs: usize) -> Self {
        self.keep_done = jobs.min(1_000_000);
        self
    }

    /// How many dead jobs are kept; the oldest are deleted first. 0 to 1,000,000, by default 10,000.
    #[must_use]
    pub fn keep_dead(mut self, jobs: usize) -> Self {
        self.keep_dead = jobs.min(1_000_000);
        self
    }

    /// How many jobs of one group run concurrently in the whole cluster. At least 1, by default 8.
    #[must_use]
    pub fn group_limit(mut self, jobs: u32) -> Self {
        self.group_limit = jobs.max(1);
        self
    }

    /// How many jobs are fetched per round trip; never more than there are free slots. 1 to 1,000, by default 64.
    #[must_use]
    pub fn fetch_batch(mut self, jobs: usize) -> Self {
        self.fetch_batch = jobs.clamp(1, 1_000);
        self
    }

    /// How long an idle worker waits for a wake-up before it polls. 100 ms to 1 min, by default 5 s. The interval
    /// matters only when a wake-up is lost.
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval.clamp(Duration::from_millis(100), Duration::from_secs(60));
        self
    }

    /// A job that has been running for `after` releases its slot and moves to one of the worker's slow slots, of which
    /// there are `per_slot` for each job of its concurrency (at least 256 in total). Further jobs of its group run in
    /// slow slots until one of them is done in time. Slow groups share the slow slots evenly, so groups that stall do
    /// not delay the others, however many there are. For jobs that wait rather than compute.
    ///
    /// `after` is at least 10 ms; by default there are no slow slots.
    #[must_use]
    pub fn slow_jobs(mut self, after: Duration, per_slot: usize) -> Self {
        self.slow = Some(SlowJobs {
            after: after.max(Duration::from_millis(10)),
            per_slot,
        });
        self
    }

    pub(crate) fn slow_after(&self) -> Option<Duration> {
        self.slow.map(|slow| slow.after)
    }

    pub(crate) fn slow_after_us(&self) -> u64 {
        self.slow_after().map_or(0, crate::queue::micros)
    }

    pub(crate) fn slow_slots(&self, concurrency: usize) -> usize {
        self.slow.map_or(0, |slow| {
            concurrency
                .saturating_mul(slow.per_slot)
                .max(MIN_SLOW_SLOTS)
        })
    }

    /// Interval between two rounds of the lease renewer: renewal, reclaim, heartbeat.
    pub(crate) fn round(&self) -> Duration {
        let third = self.lease / 3;
        self.renew_every
            .map_or(third, |every| every.min(third))
            .min(MAX_ROUND_INTERVAL)
    }
}
