//! The workers of one process: a pool for each queue, and the timers of sweep and audit.

use crate::{
    deliver, finalize, maintenance,
    meter::Meter,
    queues::{QueueName, Queues},
    tick::{self, PeriodicJob},
};
use apalis::prelude::{Monitor, MonitorError};
use landfall_core::{app::App, deliver::Deliverer, finalize::Finalizer};
use landfall_queue::{Redis, WorkerIdentity};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Maximum number of concurrent purges, sweeps and audits per process.
const MAINTENANCE_CONCURRENCY: usize = 2;

/// How often keys of an older release are looked for, until there are none.
const OLD_KEYS_INTERVAL: Duration = Duration::from_secs(60);

/// How long runs that exceed the time limit have to release their claims.
const RELEASE_MARGIN: Duration = Duration::from_secs(2);

/// Which workers a process runs.
#[derive(Clone, Debug)]
pub struct Workers {
    /// The holder of this process's leases in the database; never reused.
    pub name: String,
    pub queues: Vec<QueueName>,
    /// Overrides the configured concurrency of each queue.
    pub concurrency: Option<usize>,
    pub meter: Meter,
    /// How long running jobs may continue after `stop` is cancelled.
    pub finish_within: Duration,
}

/// Runs workers until `stop` is cancelled and running jobs have finished, or `finish_within` is over.
///
/// # Errors
/// What Apalis reports at the end; nothing before that ends the workers.
pub async fn run(
    app: App,
    queues: Queues,
    deliverer: Deliverer,
    workers: Workers,
    stop: CancellationToken,
) -> Result<(), MonitorError> {
    let config = app.config.clone();
    let name = format!("{}-{}", host(), std::process::id());
    let identity = |concurrency: usize| {
        WorkerIdentity::new(name.clone(), workers.concurrency.unwrap_or(concurrency))
    };
    let mut monitor = Monitor::new();
    let finalizer =
        Finalizer::new(&app, &workers.name).drained_by(drained(&stop, workers.finish_within));
    let mut ticking = Vec::new();
    for queue in &workers.queues {
        monitor = match queue {
            QueueName::Finalize => {
                let (queue, identity) = (
                    queues.finalize.clone(),
                    identity(config.workers.finalize_concurrency),
                );
                let finalizer = finalizer.clone();
                let (clock, meter) = (app.clock.clone(), workers.meter.clone());
                monitor.register(move |_| {
                    let worker = queue
                        .worker(identity.clone())
                        .data(finalizer.clone())
                        .data(clock.clone())
                        .data(meter.clone());
                    worker.build(finalize::handle)
                })
            }
            QueueName::Deliver => {
                let (queue, identity) = (
                    queues.deliver.clone(),
                    identity(config.workers.deliver_concurrency),
                );
                let context = deliver::DeliverContext::new(
                    deliverer.clone(),
                    &queues,
                    app.clock.clone(),
                    workers.meter.clone(),
                );
                let limits = context.limits.clone();
                tokio::spawn(limits.keep_restored(app.db.clone(), stop.clone()));
                monitor.register(move |_| {
                    queue
                        .worker(identity.clone())
                        .data(context.clone())
                        .build(deliver::handle)
                })
            }
            QueueName::Maintenance => {
                let (queue, identity) = (
                    queues.maintenance.clone(),
                    identity(MAINTENANCE_CONCURRENCY),
                );
                let (app, meter) = (app.clone(), workers.meter.clone());
                for (chore, interval) in [
                    (PeriodicJob::Sweep, config.sweep.interval),
                    (PeriodicJob::Audit, config.audit.interval),
                ] {
                    let clock = app.clock.clone();
                    ticking.push(tick::start(
                        chore,
                        interval,
                        clock,
                        queues.clone(),
                        stop.clone(),
                    ));
                }
                monitor.register(move |_| {
                    queue
                        .worker(identity.clone())
                        .data(app.clone())
                        .data(meter.clone())
                        .build(maintenance::handle)
                })
            }
        };
    }
    tokio::spawn(remove_old_keys(queues.redis.clone(), stop.clone()));
    let ended = landfall_queue::run(monitor, &queues.redis, stop, workers.finish_within).await;
    if let Err(error) = finalizer.end().await {
        tracing::warn!(%error, "claims could not be released, their leases will expire");
    }
    ended
}

/// Cancelled shortly before the remaining runs are stopped, so that they first release their claims cleanly and another
/// worker can take the files at once.
fn drained(stop: &CancellationToken, finish_within: Duration) -> CancellationToken {
    let drained = CancellationToken::new();
    let margin = (finish_within / 4).min(RELEASE_MARGIN);
    let (stop, cancelled) = (stop.clone(), drained.clone());
    tokio::spawn(async move {
        stop.cancelled().await;
        tokio::time::sleep(finish_within - margin).await;
        cancelled.cancel();
    });
    drained
}

/// Removes keys of an older release once none of its workers is alive.
async fn remove_old_keys(redis: Redis, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(OLD_KEYS_INTERVAL);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let names = QueueName::ALL.map(QueueName::as_str);
        match landfall_queue::remove_old_keys(&redis, &names).await {
            Ok(true) => return,
            Ok(false) => {}
            // This user has no permission to remove them.
            Err(error) if error.is_permission() => return,
            Err(error) => {
                tracing::debug!(%error, "keys of an older release could not be removed yet")
            }
        }
    }
}

fn host() -> String {
    WorkerIdentity::new("", 1).host
}
