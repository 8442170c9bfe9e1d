//! Limits shared by all processes of an installation: rates, sums and slots, stored in Redis.
//!
//! Each call is one script of constant cost, by the clock of Redis. Everything expires, so after a `FLUSHALL` or a
//! crash nothing is left over and everything is available again.

use std::time::Duration;

use crate::{QueueError, Redis, keys::Keys, scripts};

/// Shared limits. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Limiter {
    redis: Redis,
}

/// The decision of a rate limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateDecision {
    /// Whether the request is allowed.
    pub allowed: bool,
    /// How many more requests are allowed immediately.
    pub left: u64,
    /// How long to wait until the next request is allowed; zero if this one was.
    pub retry_after: Duration,
    /// How long until the full burst is available again.
    pub full_after: Duration,
}

impl Limiter {
    /// Creates a limiter in `redis`.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        Self { redis }
    }

    /// Counts one request of `subject` against a rate limit of `per_second`, with bursts of up to `burst`, by the
    /// generic cell rate algorithm (GCRA, ITU-T I.371).
    ///
    /// # Errors
    /// Here and below: [`QueueError::Redis`] or [`QueueError::Timeout`].
    pub async fn rate(
        &self,
        subject: &str,
        per_second: u32,
        burst: u32,
    ) -> Result<RateDecision, QueueError> {
        let period = 1_000_000.0 / f64::from(per_second.max(1));
        let arguments = [subject, &period.to_string(), &burst.max(1).to_string()];
        let (allowed, left, wait, full): (u8, u64, u64, u64) =
            self.run(&scripts::RATE, &arguments).await?;
        Ok(RateDecision {
            allowed: allowed == 1,
            left,
            retry_after: Duration::from_micros(wait),
            full_after: Duration::from_micros(full),
        })
    }

    /// Adds to the named sum and returns it; the sum is deleted `kept` after the last call.
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

    /// Acquires one of `most` slots of `subject` for `holder`, or renews the one it has, for the duration of `lease`.
    /// Returns `false` when all slots are taken.
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

    /// Releases the slot of `holder`, if it has one.
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
