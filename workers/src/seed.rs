//! Fills queues for benchmarks, with jobs in all states but running. Their files and deliveries do not exist, so a
//! worker that takes one finds nothing to do.

use crate::{
    jobs::{DeliverJob, FinalizeJob, MaintenanceJob},
    queues::Queues,
};
use apalis::prelude::{BoxDynError, Monitor};
use entity::{DeliveryId, FileId};
use landfall_queue::{Inspector, Job, JobContext, NewJob, Queue, QueueError, WorkerIdentity};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Jobs per push.
const PAGE: u64 = 5_000;

/// Number of endpoints the deliveries are for.
const GROUPS: u64 = 20;

/// One in this many jobs is scheduled.
const SCHEDULED: u64 = 5;

/// One in this many jobs is run before the others are pushed, up to [`MAX_JOBS_RUN`] per queue …
const RUN: u64 = 50;
const MAX_JOBS_RUN: u64 = 2_000;

/// … and one in this many of those ends dead.
const DEAD: u64 = 4;

/// Timeout of these runs.
const RUN_TIMEOUT: Duration = Duration::from_secs(60);

/// Why the queues were not filled.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    #[error("the jobs could not be pushed")]
    Push(#[from] QueueError),
    #[error("the jobs that were to be done and dead were not run in time")]
    Slow,
}

/// Pushes `jobs` jobs, reporting after each page how many there are.
///
/// # Errors
/// [`SeedError`]; jobs pushed before the error remain.
pub async fn seed(queues: &Queues, jobs: u64, progress: impl Fn(u64)) -> Result<(), SeedError> {
    let run = (jobs / RUN).min(MAX_JOBS_RUN);
    let few = || (0..run).map(|n| (n, 1));
    run_some(
        &queues.finalize,
        few().map(|(n, most)| finalize(n).max_attempts(most)),
    )
    .await?;
    run_some(
        &queues.deliver,
        few().map(|(n, most)| deliver(n).max_attempts(most)),
    )
    .await?;
    run_some(
        &queues.maintenance,
        few().map(|(n, most)| purge(n).max_attempts(most)),
    )
    .await?;
    for first in (0..jobs).step_by(usize::try_from(PAGE).unwrap_or(1)) {
        let numbers = first..(first + PAGE).min(jobs);
        let later = |n: &u64| n.is_multiple_of(SCHEDULED);
        let of = |queue: u64| numbers.clone().filter(move |n| n % 10 / 4 == queue);
        let delay = |n: u64| Duration::from_secs(60 + n % 3_600);
        let push = queues.finalize.push_many(of(0).map(|n| match later(&n) {
            true => finalize(n).after(delay(n)),
            false => finalize(n),
        }));
        push.await?;
        let push = queues.deliver.push_many(of(1).map(|n| match later(&n) {
            true => deliver(n).after(delay(n)),
            false => deliver(n),
        }));
        push.await?;
        queues.maintenance.push_many(of(2).map(purge)).await?;
        progress(numbers.end);
    }
    Ok(())
}

fn finalize(_: u64) -> NewJob<FinalizeJob> {
    let file_id = FileId::generate();
    NewJob::new(FinalizeJob::id(file_id), FinalizeJob { file_id })
}

fn deliver(n: u64) -> NewJob<DeliverJob> {
    let delivery_id = DeliveryId::generate();
    let job = NewJob::new(DeliverJob::id(delivery_id), DeliverJob { delivery_id });
    job.group(format!("endpoint-{}", n % GROUPS))
}

fn purge(_: u64) -> NewJob<MaintenanceJob> {
    let job = MaintenanceJob::Purge {
        file_id: FileId::generate(),
    };
    NewJob::new(job.id(), job)
}

/// Runs these jobs with a temporary worker: most become done, some dead.
async fn run_some<J: Job + Clone + Unpin>(
    queue: &Queue<J>,
    jobs: impl Iterator<Item = NewJob<J>>,
) -> Result<(), SeedError> {
    queue.push_many(jobs).await?;
    let stop = CancellationToken::new();
    let working = queue.clone();
    let monitor = Monitor::new().register(move |_| {
        working
            .worker(WorkerIdentity::new("seed", 32))
            .build(end::<J>)
    });
    let run = landfall_queue::run(monitor, queue.redis(), stop.clone(), Duration::from_secs(5));
    let watch = async {
        let inspector = Inspector::new(queue.redis().clone());
        let mut look = tokio::time::interval(Duration::from_millis(50));
        loop {
            look.tick().await;
            let stats = inspector.stats(J::QUEUE).await?;
            if stats.ready + stats.running == 0 {
                return Ok(());
            }
        }
    };
    tokio::select! {
        watched = tokio::time::timeout(RUN_TIMEOUT, watch) => {
            stop.cancel();
            watched.unwrap_or(Err(SeedError::Slow))
        }
        _ = run => Err(SeedError::Slow),
    }
}

async fn end<J: Job>(_: J, run: JobContext) -> Result<(), BoxDynError> {
    let share = run
        .id
        .bytes()
        .fold(0_u64, |sum, byte| sum + u64::from(byte));
    if share.is_multiple_of(DEAD) {
        return Err("the storage refused the object: AccessDenied".into());
    }
    Ok(())
}
