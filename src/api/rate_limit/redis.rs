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
    own: LocalCounters,
    away_until: Mutex<Option<Instant>>,
}

impl SharedCounters {
    /// Creates it without connecting.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        Self {
            shared: Limiter::new(redis),
            own: LocalCounters::default(),
            away_until: Mutex::default(),
        }
    }

    /// Returns Redis's answer if it arrives in time, unless Redis failed a moment ago.
    async fn ask<T>(&self, asked: impl Future<Output = Result<T, QueueError>>) -> Option<T> {
        let away_until = || {
            self.away_until
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        if away_until().is_some_and(|until| Instant::now() < until) {
            return None;
        }
        if let Ok(Ok(answer)) = tokio::time::timeout(REDIS_TIMEOUT, asked).await {
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
            match self.ask(self.shared.rate(subject, per_second, burst)).await {
                Some(taken) => RateLimitDecision {
                    allowed: taken.allowed,
                    left: taken.left,
                    retry_after: taken.retry_after,
                    full_after: taken.full_after,
                },
                None => self.own.check_rate(subject, per_second, burst).await,
            }
        }
        .boxed()
    }

    fn add<'a>(&'a self, subject: &'a str, bytes: u64) -> BoxFuture<'a, u64> {
        async move {
            let name = format!("{subject}:{}", today());
            match self
                .ask(self.shared.add(&name, bytes, BYTE_COUNT_RETENTION))
                .await
            {
                Some(sum) => sum,
                None => self.own.add(subject, bytes).await,
            }
        }
        .boxed()
    }

    fn acquire<'a>(&'a self, subject: &'a str, upload: Uuid, most: u32) -> BoxFuture<'a, bool> {
        async move {
            let holder = upload.to_string();
            let entered = self.shared.acquire(subject, &holder, most, SLOT_LEASE);
            match self.ask(entered).await {
                Some(entered) => entered,
                None => self.own.acquire(subject, upload, most).await,
            }
        }
        .boxed()
    }

    fn release<'a>(&'a self, subject: &'a str, upload: Uuid) -> BoxFuture<'a, ()> {
        async move {
            // The slot may have been acquired from either counter. If Redis is not reached, the slot expires.
            let holder = upload.to_string();
            self.ask(self.shared.release(subject, &holder)).await;
            self.own.release(subject, upload).await;
        }
        .boxed()
    }
}
