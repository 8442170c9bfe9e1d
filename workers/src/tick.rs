//! The clocks of sweep and audit: every process ticks at the same seconds, and pushes the same job for each.
//!
//! Three fences let each tick sweep once: the ticks lie at multiples of the interval since the Unix epoch, so all
//! processes name them alike; the queue takes one job of an id at a time; and the database lets a sweep begin only
//! if none has begun since. So it is with audits, but that one which was interrupted is begun again.

use crate::{jobs::MaintenanceJob, queues::Queues};
use apalis::prelude::{BoxDynError, Data};
use apalis_cron::{Schedule, Tick};
use landfall_queue::NewJob;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Ticks at every multiple of a number of seconds.
#[derive(Clone, Debug)]
pub(crate) struct Every {
    seconds: u64,
    last: u64,
}

impl Every {
    /// Intervals are rounded up to whole seconds.
    pub(crate) fn new(interval: Duration) -> Self {
        let seconds = interval.as_secs() + u64::from(interval.subsec_nanos() > 0);
        Self {
            seconds: seconds.max(1),
            last: 0,
        }
    }
}

impl<Tz> Schedule<Tz> for Every {
    fn next_tick(&mut self, _: &Tz) -> Option<Tick<Tz>> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let next = now.max(self.last) / self.seconds * self.seconds + self.seconds;
        self.last = next;
        Some(Tick::new(next))
    }
}

/// What a tick asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Chore {
    Sweep,
    Audit,
}

impl Chore {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Sweep => "sweep",
            Self::Audit => "audit",
        }
    }

    fn job(self, tick: u64) -> MaintenanceJob {
        match self {
            Self::Sweep => MaintenanceJob::Sweep { tick },
            Self::Audit => MaintenanceJob::Audit { tick },
        }
    }
}

pub(crate) async fn handle(
    tick: Tick,
    chore: Data<Chore>,
    queues: Data<Queues>,
) -> Result<(), BoxDynError> {
    let job = chore.job(tick.get_timestamp());
    if let Err(error) = queues.maintenance.push(NewJob::new(job.id(), job)).await {
        let chore = chore.as_str();
        tracing::warn!(%error, chore, "it could not be pushed, the next one will find what it would have found");
    }
    Ok(())
}
