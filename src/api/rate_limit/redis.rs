//! Rate limit counters shared by all processes, in Redis. While Redis is down, each process counts on its own.

use crate::api::{Counters, LocalCounters, RateLimitDecision, SLOT_LEASE, today};
use futures::{FutureExt, future::BoxFuture};
use landfall_queue::{Limiter, QueueError, Redis};
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use uuid::Uuid;

/// Timeout of each Redis call, because requests wait for it.
const REDIS_TIMEOUT: Duration = Duration::from_millis(200);

/// How long Redis is not called after an error.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// How long daily byte counts are kept: a little over a day, because clocks differ.
const BYTE_COUNT_RETENTION: Duration = Duration::from_secs(26 * 60 * 60);

/// See the module.
#[derive(Debug)]
pub struct SharedCounters {
    shared: Limiter,
    local: LocalCounters,
    away_until: Mutex<Option<Instant>>,
}

impl SharedCounters {
    /// Creates it without connecting.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        Self {
            shared: Limiter::new(redis),
            local: LocalCounters::default(),
            away_until: Mutex::default(),
        }
    }

    /// Returns Redis's answer if it arrives in time, unless Redis failed a moment ago.
    async fn call_redis<T>(&self, call: impl Future<Output = Result<T, QueueError>>) -> Option<T> {
        let away_until = || {
            self.away_until
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        if away_until().is_some_and(|until| Instant::now() < until) {
            return None;
        }
        if let Ok(Ok(answer)) = tokio::time::timeout(REDIS_TIMEOUT, call).await {
            *away_until() = None;
            return Some(answer);
        }
        let before = away_until().replace(Instant::now() + RETRY_INTERVAL);
        if before.is_none() {
            tracing::warn!("this process counts rate limits on its own until Redis responds again");
        }
        None
    }
}

impl Counters for SharedCounters {
    fn check_rate<'a>(
        &'a self,
        subject: &'a str,
        per_second: u32,
        burst: u32,
    ) -> BoxFuture<'a, RateLimitDecision> {
        async move {
            match self
                .call_redis(self.shared.rate(subject, per_second, burst))
                .await
            {
                Some(decision) => RateLimitDecision {
                    allowed: decision.allowed,
                    left: decision.left,
                    retry_after: decision.retry_after,
                    full_after: decision.full_after,
                },
                None => self.local.check_rate(subject, per_second, burst).await,
            }
        }
        .boxed()
    }

    fn add<'a>(&'a self, subject: &'a str, bytes: u64) -> BoxFuture<'a, u64> {
        async move {
            let name = format!("{subject}:{}", today());
            match self
                .call_redis(self.shared.add(&name, bytes, BYTE_COUNT_RETENTION))
                .await
            {
                Some(sum) => sum,
                None => self.local.add(subject, bytes).await,
            }
        }
        .boxed()
    }

    fn acquire<'a>(&'a self, subject: &'a str, upload: Uuid, max: u32) -> BoxFuture<'a, bool> {
        async move {
            let holder = upload.to_string();
            let entered = self.shared.acquire(subject, &holder, max, SLOT_LEASE);
            match self.call_redis(entered).await {
                Some(entered) => entered,
                None => self.local.acquire(subject, upload, max).await,
            }
        }
        .boxed()
    }

    fn release<'a>(&'a self, subject: &'a str, upload: Uuid) -> BoxFuture<'a, ()> {
        async move {
            // The slot may have been acquired from either counter. If Redis is not reached, the slot expires.
            let holder = upload.to_string();
            self.call_redis(self.shared.release(subject, &holder)).await;
            self.local.release(subject, upload).await;
        }
        .boxed()
    }
}
