//! The time, injected: tests may set it, and every stored moment has the precision both databases keep.

use chrono::{DateTime, SubsecRound, Utc};
use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

/// Tells the time in UTC, to the microsecond: the machine's, or that of another it was set by.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    set: Arc<RwLock<ClockSource>>,
    /// What it was moved forward besides: setting the clock by another's does not take it back.
    ahead_ms: Arc<AtomicI64>,
}

#[derive(Clone, Copy, Debug)]
enum ClockSource {
    /// As the machine's clock, and so much ahead of it.
    Machine(chrono::TimeDelta),
    /// It was that time then. The machine's clock may be set meanwhile, and changes nothing.
    At(Instant, DateTime<Utc>),
}

impl Default for ClockSource {
    fn default() -> Self {
        Self::Machine(chrono::TimeDelta::zero())
    }
}

/// [`Clock::after`] another moment than now.
pub(crate) fn later(moment: DateTime<Utc>, duration: Duration) -> DateTime<Utc> {
    let delta = chrono::TimeDelta::from_std(duration).unwrap_or(chrono::TimeDelta::MAX);
    moment
        .checked_add_signed(delta)
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
        .trunc_subsecs(6)
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::default()
    }

    /// Now.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        let now = match *self.set.read().unwrap_or_else(PoisonError::into_inner) {
            ClockSource::Machine(offset) => Utc::now() + offset,
            ClockSource::At(then, time) => later(time, then.elapsed()),
        };
        let ahead = self.ahead_ms.load(Ordering::Relaxed);
        (now + chrono::TimeDelta::milliseconds(ahead)).trunc_subsecs(6)
    }

    /// The moment that lies `duration` after now; durations beyond what a date can hold end in its last year.
    #[must_use]
    pub fn after(&self, duration: Duration) -> DateTime<Utc> {
        later(self.now(), duration)
    }

    /// The moment that lies `duration` before now.
    #[must_use]
    pub fn before(&self, duration: Duration) -> DateTime<Utc> {
        let delta = chrono::TimeDelta::from_std(duration).unwrap_or(chrono::TimeDelta::MAX);
        self.now()
            .checked_sub_signed(delta)
            .unwrap_or(DateTime::<Utc>::MIN_UTC)
            .trunc_subsecs(6)
    }

    /// Sets every clone of this clock off from the machine's by this much.
    pub fn set_offset(&self, offset: chrono::TimeDelta) {
        self.replace(ClockSource::Machine(offset));
    }

    /// Sets every clone of this clock: it is that time now, and from here on time is measured, not looked up.
    pub fn set(&self, time: DateTime<Utc>) {
        self.replace(ClockSource::At(Instant::now(), time));
    }

    fn replace(&self, setting: ClockSource) {
        *self.set.write().unwrap_or_else(PoisonError::into_inner) = setting;
    }

    /// Moves every clone of this clock forward, for good.
    pub fn advance(&self, duration: Duration) {
        let milliseconds = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        self.ahead_ms.fetch_add(milliseconds, Ordering::Relaxed);
    }
}
