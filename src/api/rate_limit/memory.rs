//! Rate limit counters in memory: for a single process, and for any process while Redis is down.

use super::{Counters, RateLimitDecision, SLOT_LEASE, lock, today};
use futures::{FutureExt, future::BoxFuture};
use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// Maximum number of subjects. Requests of further ones are allowed: rate limits protect the service, and must not take
/// it down.
const MAX_SUBJECTS: usize = 100_000;

/// See the module.
#[derive(Debug)]
pub struct LocalCounters {
    since: Instant,
    state: Mutex<CounterState>,
}

#[derive(Debug, Default)]
struct CounterState {
    /// The theoretical arrival time of each subject, relative to `since`.
    theoretical_arrival: HashMap<String, Duration>,
    daily_bytes: HashMap<String, (i64, u64)>,
    slots: HashMap<String, HashMap<Uuid, Duration>>,
}

impl Default for LocalCounters {
    fn default() -> Self {
        Self {
            since: Instant::now(),
            state: Mutex::default(),
        }
    }
}

impl LocalCounters {
    /// The generic cell rate algorithm (GCRA), as in Redis.
    fn count_request(&self, subject: &str, per_second: u32, burst: u32) -> RateLimitDecision {
        let now = self.since.elapsed();
        let period = Duration::from_secs(1) / per_second.max(1);
        let room = period * burst.max(1);
        let mut state = lock(&self.state);
        if state.theoretical_arrival.len() >= MAX_SUBJECTS {
            state
                .theoretical_arrival
                .retain(|_, theoretical_arrival| *theoretical_arrival > now);
        }
        let theoretical_arrival = state
            .theoretical_arrival
            .get(subject)
            .copied()
            .unwrap_or(now)
            .max(now);
        let after = theoretical_arrival + period;
        let wait = after.saturating_sub(room).saturating_sub(now);
        if !wait.is_zero() {
            return RateLimitDecision {
                allowed: false,
                left: 0,
                retry_after: wait,
                full_after: theoretical_arrival - now,
            };
        }
        if state.theoretical_arrival.len() < MAX_SUBJECTS
            || state.theoretical_arrival.contains_key(subject)
        {
            state.theoretical_arrival.insert(subject.to_owned(), after);
        }
        let free = room.saturating_sub(after - now);
        RateLimitDecision {
            allowed: true,
            left: u64::try_from(free.as_nanos() / period.as_nanos().max(1)).unwrap_or(u64::MAX),
            retry_after: Duration::ZERO,
            full_after: after - now,
        }
    }

    fn count_bytes(&self, subject: &str, bytes: u64) -> u64 {
        let today = today();
        let mut state = lock(&self.state);
        if state.daily_bytes.len() >= MAX_SUBJECTS {
            state.daily_bytes.retain(|_, (day, _)| *day == today);
        }
        if state.daily_bytes.len() >= MAX_SUBJECTS && !state.daily_bytes.contains_key(subject) {
            return bytes;
        }
        let sum = state
            .daily_bytes
            .entry(subject.to_owned())
            .or_insert((today, 0));
        if sum.0 != today {
            *sum = (today, 0);
        }
        sum.1 = sum.1.saturating_add(bytes);
        sum.1
    }

    fn acquire_slot(&self, subject: &str, upload: Uuid, max: u32) -> bool {
        let now = self.since.elapsed();
        let mut state = lock(&self.state);
        let slots = state.slots.entry(subject.to_owned()).or_default();
        slots.retain(|_, ends| *ends > now);
        let has_room = slots.len() < max as usize || slots.contains_key(&upload);
        if has_room {
            slots.insert(upload, now + SLOT_LEASE);
        }
        has_room
    }

    fn release_slot(&self, subject: &str, upload: Uuid) {
        let mut state = lock(&self.state);
        if let Some(slots) = state.slots.get_mut(subject) {
            slots.remove(&upload);
            if slots.is_empty() {
                state.slots.remove(subject);
            }
        }
    }
}

impl Counters for LocalCounters {
    fn check_rate<'a>(
        &'a self,
        subject: &'a str,
        per_second: u32,
        burst: u32,
    ) -> BoxFuture<'a, RateLimitDecision> {
        async move { self.count_request(subject, per_second, burst) }.boxed()
    }

    fn add<'a>(&'a self, subject: &'a str, bytes: u64) -> BoxFuture<'a, u64> {
        async move { self.count_bytes(subject, bytes) }.boxed()
    }

    fn acquire<'a>(&'a self, subject: &'a str, upload: Uuid, max: u32) -> BoxFuture<'a, bool> {
        async move { self.acquire_slot(subject, upload, max) }.boxed()
    }

    fn release<'a>(&'a self, subject: &'a str, upload: Uuid) -> BoxFuture<'a, ()> {
        async move { self.release_slot(subject, upload) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_is_allowed_and_then_the_rate() {
        let counters = LocalCounters::default();
        for left in [2, 1, 0] {
            let taken = counters.count_request("a", 1, 3);
            assert!(taken.allowed);
            assert!(taken.left.abs_diff(left) <= 1, "{taken:?}");
        }
        let refused = counters.count_request("a", 1, 3);
        assert!(!refused.allowed);
        assert!(refused.retry_after <= Duration::from_secs(1));
        assert!(counters.count_request("b", 1, 3).allowed);
    }

    #[test]
    fn slots_are_as_many_as_there_are_and_come_back() {
        let counters = LocalCounters::default();
        let (one, two) = (Uuid::now_v7(), Uuid::now_v7());
        assert!(counters.acquire_slot("a", one, 1));
        assert!(
            counters.acquire_slot("a", one, 1),
            "renewing takes no second one"
        );
        assert!(!counters.acquire_slot("a", two, 1));
        counters.release_slot("a", one);
        assert!(counters.acquire_slot("a", two, 1));
    }
}
