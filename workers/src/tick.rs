//! The timers of sweep and audit: every process ticks at the same seconds, and pushes the same job for each tick.
//!
//! The time is the database's, checked several times a second, so a machine whose own clock is wrong or is changed
//! still ticks with the others. Three safeguards make each tick sweep once: ticks are multiples of the interval since
//! the Unix epoch, so all processes give them the same id; the queue accepts one job per id at a time; and the database
//! lets a sweep start only if none has started since. The same holds for audits, except that an interrupted one is
//! started again.

use crate::{jobs::MaintenanceJob, queues::Queues};
use landfall_core::{clock::Clock, periodic::Ticks};
use landfall_queue::NewJob;
use std::time::Duration;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// Shorter than the shortest interval, so that no tick is missed.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// How long a push may take; the next tick follows in any case.
const PUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// The job that a timer pushes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum PeriodicJob {
    Sweep,
    Audit,
}

impl PeriodicJob {
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
    periodic_job: PeriodicJob,
    interval: Duration,
    clock: Clock,
    queues: Queues,
    stop: CancellationToken,
) -> AbortOnDropHandle<()> {
    let ticking = async move {
        let mut ticks = Ticks::new(interval);
        loop {
            if let Some(tick) = ticks.since_last(clock.now()) {
                push(periodic_job, tick, &queues).await;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    };
    AbortOnDropHandle::new(tokio::spawn(async move {
        stop.run_until_cancelled(ticking).await;
    }))
}

async fn push(periodic_job: PeriodicJob, tick: u64, queues: &Queues) {
    let job = periodic_job.job(tick);
    let pushed = queues.maintenance.push(NewJob::new(job.id(), job));
    let problem = match tokio::time::timeout(PUSH_TIMEOUT, pushed).await {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no response in time".to_owned(),
    };
    let periodic_job = periodic_job.as_str();
    tracing::warn!(
        problem,
        periodic_job,
        "the job could not be pushed, the next tick does its work"
    );
}
