//! The time, injected: tests may set it, and every stored moment has the precision both databases keep.

use chrono::{DateTime, SubsecRound, Utc};
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

/// Tells the time in UTC, to the microsecond; may be set off from the machine's clock.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    offset_ms: Arc<AtomicI64>,
    /// What it was moved forward besides: setting the clock by another's does not take it back.
    ahead_ms: Arc<AtomicI64>,
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
        let offset = self.offset_ms.load(Ordering::Relaxed);
        let ahead = self.ahead_ms.load(Ordering::Relaxed);
        let offset = chrono::TimeDelta::milliseconds(offset.saturating_add(ahead));
        (Utc::now() + offset).trunc_subsecs(6)
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

    /// Sets every clone of this clock off from the machine's by this much, to the millisecond.
    pub fn set_offset(&self, offset: chrono::TimeDelta) {
        self.offset_ms
            .store(offset.num_milliseconds(), Ordering::Relaxed);
    }

    /// Moves every clone of this clock forward, for good.
    pub fn advance(&self, duration: Duration) {
        let milliseconds = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        self.ahead_ms.fetch_add(milliseconds, Ordering::Relaxed);
    }
}
