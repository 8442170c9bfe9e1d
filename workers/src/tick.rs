//! The clocks of sweep and audit: every process ticks at the same seconds, and pushes the same job for each.
//!
//! Time is the database's, looked at several times a second: a machine whose own clock is off or is set ticks with the
//! others all the same. Three fences let each tick sweep once: the ticks lie at multiples of the interval since the Unix
//! epoch, so all processes name them alike; the queue takes one job of an id at a time; and the database lets a sweep
//! begin only if none has begun since. So it is with audits, but that one which was interrupted is begun again.

use crate::{jobs::MaintenanceJob, queues::Queues};
use landfall_core::{clock::Clock, periodic::Ticks};
use landfall_queue::NewJob;
use std::time::Duration;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// Shorter than the shortest interval, so that no tick is missed.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// How long a push may take; the next tick follows in any case.
const PUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// What a tick asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Chore {
    Sweep,
    Audit,
}

impl Chore {
    fn as_str(self) -> &'static str {
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

/// Ticks until `stop` is cancelled or the handle is dropped.
pub(crate) fn start(
    chore: Chore,
    interval: Duration,
    clock: Clock,
    queues: Queues,
    stop: CancellationToken,
) -> AbortOnDropHandle<()> {
    let ticking = async move {
        let mut ticks = Ticks::new(interval);
        loop {
            if let Some(tick) = ticks.since_last(clock.now()) {
                push(chore, tick, &queues).await;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    AbortOnDropHandle::new(tokio::spawn(async move {
        stop.run_until_cancelled(ticking).await;
    }))
}

async fn push(chore: Chore, tick: u64, queues: &Queues) {
    let job = chore.job(tick);
    let pushed = queues.maintenance.push(NewJob::new(job.id(), job));
    let problem = match tokio::time::timeout(PUSH_TIMEOUT, pushed).await {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer in time".to_owned(),
    };
    let chore = chore.as_str();
    tracing::warn!(
        problem,
        chore,
        "it could not be pushed, the next one will find what it would have found"
    );
}
