//! The gauges of the installation: from the database, from Redis, and from the latest health checks.
//!
//! Computed for every response. A value that cannot be read now is absent, never stale.

use super::PREFIX;
use crate::api::{Check, QueueFigures, Readiness, Status, state::ApiState};
use entity::{Timestamp, file::FileStatus};
use landfall_core::{app::App, audit, db::is_transient, files, outbox, sweep};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::{Registry, Unit},
};
use sea_orm::{ActiveEnum, DbErr};
use std::{
    error::Error,
    future::Future,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Timeout of each database query.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum age of the total of staged bytes, because measuring visits each file.
const STAGING_MAX_AGE: Duration = Duration::from_secs(60);

/// Transient statuses and those that need attention; few enough rows to be counted.
const COUNTED_STATUSES: [FileStatus; 4] = [
    FileStatus::Uploading,
    FileStatus::Staged,
    FileStatus::Finalizing,
    FileStatus::Failed,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    status: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CheckLabels {
    check: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    queue: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueJobLabels {
    queue: &'static str,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InvariantLabels {
    invariant: &'static str,
}

pub(super) async fn now(state: &ApiState) -> Registry {
    let mut registry = Registry::with_prefix(PREFIX);
    let app = &state.app;
    let (readiness, queues, workers) = tokio::join!(
        state.health.readiness(app),
        state.health.queues(),
        state.health.worker_count(),
    );
    checks(&mut registry, &readiness);
    if let Some(workers) = workers {
        let workers = i64::try_from(workers).unwrap_or(i64::MAX);
        let help = "Workers with a recent heartbeat";
        registry.register("workers", help, ConstGauge::new(workers));
    }
    if let Some(queues) = queues {
        add_queues(&mut registry, &queues);
    }
    add_staging(&mut registry, app).await;
    if readiness.checks.database.status == Status::Ok {
        add_database(&mut registry, app).await;
    }
    registry
}

fn checks(registry: &mut Registry, readiness: &Readiness) {
    let healthy = Family::<CheckLabels, Gauge>::default();
    for (check, Check { status, .. }) in readiness.checks.named() {
        let well = i64::from(*status == Status::Ok);
        healthy.get_or_create(&CheckLabels { check }).set(well);
    }
    registry.register(
        "healthy",
        "1 if the /readyz check is ok, 0 if it is degraded or down",
        healthy,
    );
}

fn add_queues(registry: &mut Registry, queues: &[QueueFigures]) {
    let jobs = Family::<QueueJobLabels, Gauge>::default();
    let latency = Family::<QueueLabels, Gauge<f64, AtomicU64>>::default();
    let paused = Family::<QueueLabels, Gauge>::default();
    let (done, failed) = (
        Family::<QueueLabels, Counter>::default(),
        Family::<QueueLabels, Counter>::default(),
    );
    for figures in queues {
        let queue = figures.name;
        for (state, count) in [
            ("ready", figures.ready),
            ("scheduled", figures.scheduled),
            ("running", figures.running),
            ("dead", figures.dead),
        ] {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            jobs.get_or_create(&QueueJobLabels { queue, state })
                .set(count);
        }
        latency
            .get_or_create(&QueueLabels { queue })
            .set(figures.latency.as_secs_f64());
        let is_paused = i64::from(figures.paused);
        paused.get_or_create(&QueueLabels { queue }).set(is_paused);
        for (total, count) in [(&done, figures.done_total), (&failed, figures.failed_total)] {
            let counter = total.get_or_create(&QueueLabels { queue });
            counter.inner().store(count, Ordering::Relaxed);
        }
    }
    registry.register("queue_jobs", "Jobs in Redis by queue and state", jobs);
    registry.register_with_unit(
        "queue_latency",
        "Age of the oldest ready job",
        Unit::Seconds,
        latency,
    );
    registry.register("queue_paused", "1 if the queue is paused", paused);
    registry.register(
        "queue_jobs_done",
        "Jobs completed since Redis was last empty",
        done,
    );
    registry.register(
        "queue_attempts_failed",
        "Failed job attempts since Redis was last empty",
        failed,
    );
}

async fn add_staging(registry: &mut Registry, app: &App) {
    let query = app.staging.usage(STAGING_MAX_AGE);
    let Ok(Ok(usage)) = tokio::time::timeout(DATABASE_TIMEOUT, query).await else {
        return;
    };
    let bytes = |bytes: u64| ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX));
    registry.register_with_unit(
        "staging_used",
        "Bytes in staging, at most one minute old",
        Unit::Bytes,
        bytes(usage.used),
    );
    registry.register_with_unit(
        "staging_quota",
        "Maximum bytes in staging (staging.quota); 0 if there is none",
        Unit::Bytes,
        bytes(usage.quota.unwrap_or(0)),
    );
    if let Some(free) = usage.free {
        let help = "Free space on the staging disk";
        registry.register_with_unit("staging_free", help, Unit::Bytes, bytes(free));
    }
}

async fn add_database(registry: &mut Registry, app: &App) {
    let db = app.db.read();
    let now = app.clock.now();
    if let Some(counts) = query("files", files::counts_by_status(db, &COUNTED_STATUSES)).await {
        let files = Family::<StatusLabels, Gauge>::default();
        for status in COUNTED_STATUSES {
            let count = counts.get(&status).copied().unwrap_or(0);
            let labels = StatusLabels {
                status: status.to_value(),
            };
            files.get_or_create(&labels).set(whole(count));
        }
        let help = "Files by status: in progress or failed";
        registry.register("files", help, files);
    }
    if let Some(oldest) = query("the oldest staged file", files::oldest_staged(db)).await {
        let help = "Age of the file that has waited longest to be finalized; 0 when none waiting";
        age(registry, "oldest_staged_age", help, oldest, now);
    }
    if let Some(counts) = query("events", outbox::counts(&app.db)).await {
        let events = Family::<StatusLabels, Gauge>::default();
        for (status, count) in [("pending", counts.pending), ("failed", counts.failed)] {
            let status = status.to_owned();
            events
                .get_or_create(&StatusLabels { status })
                .set(whole(count));
        }
        let help = "Undelivered events, counted up to 100,000";
        registry.register("events", help, events);
        let help = "Age of the oldest pending event; 0 when there is none";
        let oldest = counts.oldest_pending_since;
        age(registry, "oldest_undelivered_age", help, oldest, now);
    }
    if let Some(Some(last)) = query("the last sweep", sweep::last_run(db)).await {
        let help = "Time since the last sweep started";
        age(registry, "sweep_age", help, Some(last.started_at), now);
    }
    if let Some(Some(latest)) = query("the last audit", audit::latest(db)).await {
        add_audit(registry, &latest, now);
    }
}

fn add_audit(registry: &mut Registry, latest: &audit::LastAudit, now: Timestamp) {
    let help = "Time since the last audit finished";
    age(registry, "audit_age", help, Some(latest.finished_at), now);
    let checked = ConstGauge::new(whole(latest.summary.checked));
    let help = "Files, events, objects and due rows that the last audit checked";
    registry.register("audit_checked", help, checked);
    let offenders = Family::<InvariantLabels, Gauge>::default();
    for invariant in audit::Invariant::ALL {
        let left = latest.summary.left.get(&invariant).copied().unwrap_or(0);
        let invariant = invariant.as_str();
        offenders
            .get_or_create(&InvariantLabels { invariant })
            .set(whole(left));
    }
    registry.register(
        "audit_offenders",
        "Problems that the last audit found and did not repair, by invariant",
        offenders,
    );
}

fn age(registry: &mut Registry, name: &str, help: &str, since: Option<Timestamp>, now: Timestamp) {
    let age = since.and_then(|since| (now - since).to_std().ok());
    let seconds = age.unwrap_or_default().as_secs_f64();
    registry.register_with_unit(name, help, Unit::Seconds, ConstGauge::new(seconds));
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Runs a query with a timeout; logs and returns `None` if it fails.
async fn query<T>(what: &str, query: impl Future<Output = Result<T, DbErr>>) -> Option<T> {
    match tokio::time::timeout(DATABASE_TIMEOUT, query).await {
        Ok(Ok(answer)) => Some(answer),
        // The log has a line about the outage itself.
        Ok(Err(error)) if is_transient(&error) => {
            tracing::debug!(%error, "/metrics omits {what}");
            None
        }
        Ok(Err(error)) => {
            let error = &error as &dyn Error;
            tracing::warn!(error, "/metrics omits {what}");
            None
        }
        Err(_) => {
            tracing::warn!("/metrics omits {what}: the query timed out");
            None
        }
    }
}
