//! `/healthz` and `/readyz`: whether the process lives, and whether what it depends on does.

use super::{state::State, watchers};
use futures::future::BoxFuture;
use http::{StatusCode, header};
use landfall_core::{
    app::App,
    db::WriteFault,
    installation::{self, InstallationError, MarkedLocation},
    sweep,
};
use poem::{Body, IntoResponse, Request, Response, handler, web::Data};
use serde::Serialize;
use serde_json::Value;
use std::{
    error::Error,
    fmt,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

/// How long any one check may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a report is given out again: probes come often, and from several places.
const FRESH: Duration = Duration::from_secs(1);

const DATABASE_DOWN: &str = "does not respond: requests fail";
const REDIS_DOWN: &str = "does not respond: uploads are accepted and wait for the workers";
const STORAGE_DOWN: &str = "unavailable: uploads are accepted and wait in staging, downloads fail";
const STAGING_DOWN: &str = "unavailable: uploads fail";

/// A sweep that has not begun for so many intervals is late.
const LATE_AFTER: u32 = 3;

/// What the API cannot see for itself: the way to the workers. Every call ends soon by itself.
pub trait Health: fmt::Debug + Send + Sync {
    /// Whether Redis answers; why not.
    fn redis(&self) -> BoxFuture<'_, Result<(), String>>;

    /// How many workers have said lately that they live; why that cannot be told.
    fn workers(&self) -> BoxFuture<'_, Result<usize, String>>;

    /// The figures of each queue; why they cannot be told.
    fn queues(&self) -> BoxFuture<'_, Result<Vec<QueueFigures>, String>>;
}

/// What there is in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueFigures {
    pub name: &'static str,
    pub ready: u64,
    pub scheduled: u64,
    pub running: u64,
    pub dead: u64,
    pub done_total: u64,
    pub failed_total: u64,
    /// How long the oldest ready job has been ready; zero when none is.
    pub latency: Duration,
    pub paused: bool,
}

/// How well something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Ok,
    /// Nothing is lost and uploads are taken in, but something waits.
    Degraded,
    /// Requests fail.
    Down,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    pub status: Status,
    /// What it means for those who use the service; whoever asks may read it.
    pub detail: String,
    /// Why, for the log alone: it may name hosts.
    #[serde(skip)]
    cause: Option<String>,
}

/// What all checks found.
#[derive(Clone, Debug, Serialize)]
pub struct Readiness {
    pub status: Status,
    pub checks: Checks,
}

/// Each check.
#[derive(Clone, Debug, Serialize)]
pub struct Checks {
    pub database: Check,
    pub redis: Check,
    pub storage: Check,
    pub staging: Check,
    pub workers: Check,
    pub sweep: Check,
}

/// Looks, and remembers for a moment what it saw.
#[derive(Debug)]
pub struct HealthCheck {
    health: Arc<dyn Health>,
    begun: Instant,
    last: Mutex<Option<(Instant, Arc<Readiness>)>>,
}

impl HealthCheck {
    /// Nothing is looked at yet.
    #[must_use]
    pub fn new(health: Arc<dyn Health>) -> Self {
        Self {
            health,
            begun: Instant::now(),
            last: Mutex::default(),
        }
    }

    /// How everything is, as of a moment ago.
    pub async fn readiness(&self, app: &App) -> Arc<Readiness> {
        // Those who come while one looks wait for what it finds.
        let mut last = self.last.lock().await;
        if let Some((at, report)) = &*last
            && at.elapsed() < FRESH
        {
            return Arc::clone(report);
        }
        let report = Arc::new(self.look(app).await);
        log_changes(
            last.as_ref().map(|(_, before)| &before.checks),
            &report.checks,
        );
        *last = Some((Instant::now(), Arc::clone(&report)));
        report
    }

    /// The figures of each queue, if they can be told now.
    pub(super) async fn queues(&self) -> Option<Vec<QueueFigures>> {
        let told = tokio::time::timeout(PATIENCE, self.health.queues()).await;
        told.ok()?.ok()
    }

    /// How many workers live, if that can be told now.
    pub(super) async fn worker_count(&self) -> Option<usize> {
        let told = tokio::time::timeout(PATIENCE, self.health.workers()).await;
        told.ok()?.ok()
    }

    async fn look(&self, app: &App) -> Readiness {
        let (database, redis, storage, staging, workers, sweep) = tokio::join!(
            within(Status::Down, async {
                let answers = told(app.db.ping().await, Status::Down, DATABASE_DOWN);
                match app.db.write_fault() {
                    Some(fault) if answers.status == Status::Ok => not_writable(fault),
                    _ => answers,
                }
            }),
            within(Status::Degraded, async {
                told(self.health.redis().await, Status::Degraded, REDIS_DOWN)
            }),
            within(Status::Degraded, storage(app)),
            within(Status::Down, staging(app)),
            within(Status::Degraded, self.workers(app)),
            within(Status::Degraded, self.sweep(app)),
        );
        let checks = Checks {
            database,
            redis,
            storage,
            staging,
            workers,
            sweep,
        };
        Readiness {
            status: checks.worst(),
            checks,
        }
    }

    async fn workers(&self, app: &App) -> Check {
        let hosts = app.config.webhooks.sealing.waiting_for();
        if !hosts.is_empty() {
            let hosts = hosts.join(", ");
            let detail = format!(
                "processes on {hosts} do not know the new webhooks.secret_key: restart them with it; until then secrets \
                 stay as they were"
            );
            return Check::new(Status::Degraded, detail);
        }
        match self.health.workers().await {
            Ok(0) => Check::new(
                Status::Degraded,
                "no worker is running: uploads wait in staging",
            ),
            Ok(count) => Check::new(Status::Ok, format!("{count} running")),
            Err(error) => Check {
                cause: Some(error),
                ..Check::new(Status::Degraded, "unknown while Redis is unavailable")
            },
        }
    }

    async fn sweep(&self, app: &App) -> Check {
        let late = app.config.sweep.interval * LATE_AFTER;
        let last = match sweep::last_run(app.db.read()).await {
            Ok(last) => last,
            Err(_) => {
                return Check::new(
                    Status::Degraded,
                    "unknown while the database is unavailable",
                );
            }
        };
        let Some(last) = last else {
            return match self.begun.elapsed() > late {
                true => Check::new(Status::Degraded, "has never run"),
                false => Check::new(Status::Ok, "has not run yet"),
            };
        };
        let age = (app.clock.now() - last.started_at)
            .to_std()
            .unwrap_or_default();
        let seconds = age.as_secs();
        match age > late {
            true => Check::new(
                Status::Degraded,
                format!("last started {seconds} s ago, which is overdue"),
            ),
            false => Check::new(Status::Ok, format!("last started {seconds} s ago")),
        }
    }
}

impl Check {
    fn new(status: Status, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            cause: None,
        }
    }
}

impl Checks {
    /// Each by its name.
    #[must_use]
    pub fn named(&self) -> [(&'static str, &Check); 6] {
        [
            ("database", &self.database),
            ("redis", &self.redis),
            ("storage", &self.storage),
            ("staging", &self.staging),
            ("workers", &self.workers),
            ("sweep", &self.sweep),
        ]
    }

    fn worst(&self) -> Status {
        let worst = self
            .named()
            .into_iter()
            .map(|(_, check)| check.status)
            .max();
        worst.unwrap_or(Status::Ok)
    }
}

async fn storage(app: &App) -> Check {
    if let Some(check) = marker(app, MarkedLocation::Storage, Status::Degraded, STORAGE_DOWN).await
    {
        return check;
    }
    let health = app.storage.health().await;
    told(health.map_err(chain), Status::Degraded, STORAGE_DOWN)
}

async fn staging(app: &App) -> Check {
    if let Some(check) = marker(app, MarkedLocation::Staging, Status::Down, STAGING_DOWN).await {
        return check;
    }
    if let Err(error) = app.staging.health().await {
        return told(Err(chain(error)), Status::Down, STAGING_DOWN);
    }
    match app.staging.shortage().await {
        Ok(None) => Check::new(Status::Ok, "responds"),
        Ok(Some(shortage)) => Check::new(Status::Degraded, shortage.to_string()),
        Err(error) => told(Err(chain(error)), Status::Down, STAGING_DOWN),
    }
}

/// What the installation's marker tells against a place, if anything. What keeps the marker from being looked at is
/// left to the other checks, which name it.
async fn marker(app: &App, place: MarkedLocation, status: Status, down: &str) -> Option<Check> {
    match installation::check_marker(app, place).await {
        Err(InstallationError::Marker { source, .. }) => {
            Some(Check::new(status, format!("{down}: {source}")))
        }
        _ => None,
    }
}

fn told<E: fmt::Display>(outcome: Result<(), E>, otherwise: Status, detail: &str) -> Check {
    match outcome {
        Ok(()) => Check::new(Status::Ok, "responds"),
        Err(error) => Check {
            cause: Some(error.to_string()),
            ..Check::new(otherwise, detail)
        },
    }
}

fn not_writable(fault: WriteFault) -> Check {
    let detail = format!(
        "nothing can be written, so uploads fail, while what is stored can be read: {}",
        fault.reason
    );
    Check {
        cause: Some(fault.cause),
        ..Check::new(Status::Down, detail)
    }
}

/// An error and its causes on one line.
fn chain(error: impl Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Probes come every few seconds: what they found is logged when it changes.
fn log_changes(before: Option<&Checks>, now: &Checks) {
    for (number, (name, check)) in now.named().into_iter().enumerate() {
        let was = before.map(|checks| checks.named()[number].1.status);
        let (detail, cause) = (&check.detail, check.cause.as_deref().unwrap_or("none"));
        match (was, check.status) {
            (None, Status::Ok) => {}
            (Some(was), status) if was == status => {}
            (_, Status::Ok) => tracing::info!(check = name, detail, "the check is well again"),
            _ => tracing::warn!(check = name, detail, cause, "a check is not well"),
        }
    }
}

async fn within(otherwise: Status, check: impl Future<Output = Check>) -> Check {
    match tokio::time::timeout(PATIENCE, check).await {
        Ok(check) => check,
        Err(_) => Check::new(otherwise, format!("no response within {PATIENCE:?}")),
    }
}

/// Details name paths and hosts. Whether the process is ready is for any load balancer to know.
fn hide_details(report: &mut Value) {
    let checks = report["checks"].as_object_mut().into_iter().flatten();
    for (_, check) in checks {
        check["detail"] = "".into();
    }
}

/// The process lives.
#[handler]
pub(crate) fn healthz() -> Response {
    Response::builder()
        .content_type("application/json")
        .header(header::CACHE_CONTROL, "no-store")
        .body(r#"{"status":"ok"}"#)
}

/// 200 while requests can be served, 503 while they cannot.
#[handler]
pub(crate) async fn readyz(state: Data<&State>, request: &Request) -> Response {
    let readiness = state.health.readiness(&state.app).await;
    let status = match readiness.status {
        Status::Ok | Status::Degraded => StatusCode::OK,
        Status::Down => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut report = serde_json::to_value(&*readiness).expect("a report is JSON");
    if watchers::admit(&state, request).await.is_err() {
        hide_details(&mut report);
    }
    let body = serde_json::to_vec(&report).expect("a report is JSON");
    Response::builder()
        .status(status)
        .content_type("application/json")
        .header(header::CACHE_CONTROL, "no-store")
        .body(Body::from_vec(body))
        .into_response()
}
