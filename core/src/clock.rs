//! The injected clock. Tests can set it, and every timestamp has the precision that both databases store.

use chrono::{DateTime, SubsecRound, Utc};
use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

/// The current time in UTC, to the microsecond: the machine's, or the database's once it was synchronized.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    set: Arc<RwLock<ClockSource>>,
    /// How far the clock was advanced in addition; synchronizing it does not undo that.
    ahead_ms: Arc<AtomicI64>,
}

#[derive(Clone, Copy, Debug)]
enum ClockSource {
    /// The machine's clock plus an offset.
    Machine(chrono::TimeDelta),
    /// A time and the instant it was set at. Later changes of the machine's clock have no effect.
    At(Instant, DateTime<Utc>),
}

impl Default for ClockSource {
    fn default() -> Self {
        Self::Machine(chrono::TimeDelta::zero())
    }
}

/// [`Clock::after`] a given moment.
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

    /// The current time.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        let now = match *self.set.read().unwrap_or_else(PoisonError::into_inner) {
            ClockSource::Machine(offset) => Utc::now() + offset,
            ClockSource::At(then, time) => later(time, then.elapsed()),
        };
        let ahead = self.ahead_ms.load(Ordering::Relaxed);
        (now + chrono::TimeDelta::milliseconds(ahead)).trunc_subsecs(6)
    }

    /// The moment `duration` from now, saturating at the last representable year.
    #[must_use]
    pub fn after(&self, duration: Duration) -> DateTime<Utc> {
        later(self.now(), duration)
    }

    /// The moment `duration` ago.
    #[must_use]
    pub fn before(&self, duration: Duration) -> DateTime<Utc> {
        let delta = chrono::TimeDelta::from_std(duration).unwrap_or(chrono::TimeDelta::MAX);
        self.now()
            .checked_sub_signed(delta)
            .unwrap_or(DateTime::<Utc>::MIN_UTC)
            .trunc_subsecs(6)
    }

    /// Sets the offset of this clock, and all its clones, from the machine's clock.
    pub fn set_offset(&self, offset: chrono::TimeDelta) {
        self.replace(ClockSource::Machine(offset));
    }

    /// Sets this clock and all its clones to `time`. From then on, elapsed time is measured with a monotonic clock.
    pub fn set(&self, time: DateTime<Utc>) {
        self.replace(ClockSource::At(Instant::now(), time));
    }

    fn replace(&self, setting: ClockSource) {
        *self.set.write().unwrap_or_else(PoisonError::into_inner) = setting;
    }

    /// Advances this clock and all its clones permanently.
    pub fn advance(&self, duration: Duration) {
        let milliseconds = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        self.ahead_ms.fetch_add(milliseconds, Ordering::Relaxed);
    }
}
