//! Limits that all processes of an installation share: rates, sums and slots, kept in its Redis.
//!
//! Each call is one script of constant cost, by Redis's clock. Everything expires by itself, so a
//! `FLUSHALL` or a crash gives back what was used and leaves nothing.

use std::time::Duration;

use crate::{QueueError, Redis, keys::Keys, scripts};

/// Shared limits. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Limiter {
    redis: Redis,
}

/// What came of taking one from a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateTaken {
    /// Whether there was one to take.
    pub allowed: bool,
    /// How many more may be taken at once.
    pub left: u64,
    /// How long to wait before one can be taken; zero when one was.
    pub retry_after: Duration,
    /// How long until as many can be taken at once as ever.
    pub full_after: Duration,
}

impl Limiter {
    /// The limits in `redis`.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        Self { redis }
    }

    /// Takes one for `subject` at `per_second`, of which `burst` may come at once, by the generic
    /// cell rate algorithm (ITU-T I.371).
    ///
    /// # Errors
    /// Here and below: [`QueueError::Redis`] or [`QueueError::Timeout`].
    pub async fn rate(
        &self,
        subject: &str,
        per_second: u32,
        burst: u32,
    ) -> Result<RateTaken, QueueError> {
        let period = 1_000_000.0 / f64::from(per_second.max(1));
        let arguments = [subject, &period.to_string(), &burst.max(1).to_string()];
        let (allowed, left, wait, full): (u8, u64, u64, u64) =
            self.run(&scripts::RATE, &arguments).await?;
        Ok(RateTaken {
            allowed: allowed == 1,
            left,
            retry_after: Duration::from_micros(wait),
            full_after: Duration::from_micros(full),
        })
    }

    /// Adds to the sum of that name and answers it; it is forgotten `kept` after the last call.
    ///
    /// # Errors
    /// [`QueueError::Redis`] or [`QueueError::Timeout`].
    pub async fn add(&self, name: &str, amount: u64, kept: Duration) -> Result<u64, QueueError> {
        let arguments = [
            name,
            &amount.to_string(),
            &kept.as_secs().max(1).to_string(),
        ];
        self.run(&scripts::SUM, &arguments).await
    }

    /// Takes one of `most` slots of `subject` for `holder`, or renews the one it has, until `lease`
    /// is over; `false` when all are taken.
    ///
    /// # Errors
    /// [`QueueError::Redis`] or [`QueueError::Timeout`].
    pub async fn acquire(
        &self,
        subject: &str,
        holder: &str,
        most: u32,
        lease: Duration,
    ) -> Result<bool, QueueError> {
        let lease = lease.as_millis().max(1).to_string();
        let arguments = [subject, holder, &most.max(1).to_string(), &lease];
        let has: u8 = self.run(&scripts::SLOT, &arguments).await?;
        Ok(has == 1)
    }

    /// Gives back the slot of `holder`, if it has one.
    ///
    /// # Errors
    /// [`QueueError::Redis`] or [`QueueError::Timeout`].
    pub async fn release(&self, subject: &str, holder: &str) -> Result<(), QueueError> {
        let arguments = [subject, holder, "0", "0"];
        let _: u8 = self.run(&scripts::SLOT, &arguments).await?;
        Ok(())
    }

    async fn run<T: redis::FromRedisValue>(
        &self,
        script: &redis::Script,
        arguments: &[&str],
    ) -> Result<T, QueueError> {
        let mut script = script.prepare_invoke();
        script.key(Keys::limits(self.redis.prefix()).base);
        for argument in arguments {
            script.arg(*argument);
        }
        self.redis.call(&script).await
    }
}
