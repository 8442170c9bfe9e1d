//! `/healthz` and `/readyz`: liveness of the process, and the health of its dependencies.

use super::{metrics_access, state::ApiState};
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
use serde_json::{Value, json};
use std::{
    error::Error,
    fmt,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

/// Timeout of each check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a report is cached: probes come often and from several clients.
const CACHE_TTL: Duration = Duration::from_secs(1);

const DATABASE_DOWN: &str = "does not respond: requests fail";
const REDIS_DOWN: &str = "does not respond: uploads are accepted and wait for the workers";
const STORAGE_DOWN: &str = "unavailable: uploads are accepted and wait in staging, downloads fail";
const STAGING_DOWN: &str = "unavailable: uploads fail";

/// Number of intervals without a sweep after which it is overdue.
const OVERDUE_INTERVALS: u32 = 3;

/// The health of Redis and the workers, which the API cannot check itself. Every call has its own timeout.
pub trait QueueHealth: fmt::Debug + Send + Sync {
    /// Checks that Redis responds; the error says why it does not.
    fn redis(&self) -> BoxFuture<'_, Result<(), String>>;

    /// The number of workers with a recent heartbeat; the error says why it is unknown.
    fn workers(&self) -> BoxFuture<'_, Result<usize, String>>;

    /// The figures of each queue; the error says why they are unknown.
    fn queues(&self) -> BoxFuture<'_, Result<Vec<QueueFigures>, String>>;
}

/// The jobs in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueFigures {
    pub name: &'static str,
    pub ready: u64,
    pub scheduled: u64,
    pub running: u64,
    pub dead: u64,
    pub done_total: u64,
    pub failed_total: u64,
    /// Age of the oldest ready job; zero if there is none.
    pub latency: Duration,
    pub paused: bool,
}

/// The status of a dependency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Ok,
    /// Uploads are accepted and nothing is lost, but work is waiting.
    Degraded,
    /// Requests fail.
    Down,
}

/// The result of one check.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    pub status: Status,
    /// What it means for users of the service; visible to every authorized client.
    pub detail: String,
    /// The cause, for the log only; it may contain host names.
    #[serde(skip)]
    cause: Option<String>,
}

/// The result of all checks.
#[derive(Clone, Debug, Serialize)]
pub struct Readiness {
    pub status: Status,
    pub checks: Checks,
}

/// All checks.
#[derive(Clone, Debug, Serialize)]
pub struct Checks {
    pub database: Check,
    pub redis: Check,
    pub storage: Check,
    pub staging: Check,
    pub workers: Check,
    pub sweep: Check,
}

/// Runs the checks, and caches the report for a moment.
#[derive(Debug)]
pub struct HealthCheck {
    health: Arc<dyn QueueHealth>,
    started: Instant,
    last: Mutex<Option<(Instant, Arc<Readiness>)>>,
}

impl HealthCheck {
    /// Creates it without running a check.
    #[must_use]
    pub fn new(health: Arc<dyn QueueHealth>) -> Self {
        Self {
            health,
            started: Instant::now(),
            last: Mutex::default(),
        }
    }

    /// Returns the report, at most one second old.
    pub async fn readiness(&self, app: &App) -> Arc<Readiness> {
        // Concurrent callers wait for the result of the first.
        let mut last = self.last.lock().await;
        if let Some((at, report)) = &*last
            && at.elapsed() < CACHE_TTL
        {
            return Arc::clone(report);
        }
        let report = Arc::new(self.run_checks(app).await);
        log_changes(
            last.as_ref().map(|(_, before)| &before.checks),
            &report.checks,
        );
        *last = Some((Instant::now(), Arc::clone(&report)));
        report
    }

    /// The figures of each queue, if they are available.
    pub(super) async fn queues(&self) -> Option<Vec<QueueFigures>> {
        let result = tokio::time::timeout(CHECK_TIMEOUT, self.health.queues()).await;
        result.ok()?.ok()
    }

    /// The number of live workers, if it is available.
    pub(super) async fn worker_count(&self) -> Option<usize> {
        let result = tokio::time::timeout(CHECK_TIMEOUT, self.health.workers()).await;
        result.ok()?.ok()
    }

    async fn run_checks(&self, app: &App) -> Readiness {
        let (database, redis, storage, staging, workers, sweep) = tokio::join!(
            within(Status::Down, async {
                let ping = check_result(app.db.ping().await, Status::Down, DATABASE_DOWN);
                match app.db.write_fault() {
                    Some(fault) if ping.status == Status::Ok => not_writable(fault),
                    _ => ping,
                }
            }),
            within(Status::Degraded, async {
                check_result(self.health.redis().await, Status::Degraded, REDIS_DOWN)
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
            status: checks.worst_status(),
            checks,
        }
    }

    async fn workers(&self, app: &App) -> Check {
        let hosts = app.config.webhooks.sealing.waiting_for();
        if !hosts.is_empty() {
            let hosts = hosts.join(", ");
            let detail = format!(
                "processes on {hosts} do not have the new webhooks.secret_key: restart them with it; until then secrets \
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
        let late = app.config.sweep.interval * OVERDUE_INTERVALS;
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
            return match self.started.elapsed() > late {
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
    /// Returns each check with its name.
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

    fn worst_status(&self) -> Status {
        let worst_status = self
            .named()
            .into_iter()
            .map(|(_, check)| check.status)
            .max();
        worst_status.unwrap_or(Status::Ok)
    }
}

async fn storage(app: &App) -> Check {
    if let Some(check) = marker(app, MarkedLocation::Storage, Status::Degraded, STORAGE_DOWN).await
    {
        return check;
    }
    let health = app.storage.health().await;
    check_result(health.map_err(chain), Status::Degraded, STORAGE_DOWN)
}

async fn staging(app: &App) -> Check {
    if let Some(check) = marker(app, MarkedLocation::Staging, Status::Down, STAGING_DOWN).await {
        return check;
    }
    if let Err(error) = app.staging.health().await {
        return check_result(Err(chain(error)), Status::Down, STAGING_DOWN);
    }
    match app.staging.shortage().await {
        Ok(None) => Check::new(Status::Ok, "responds"),
        Ok(Some(shortage)) => Check::new(Status::Degraded, shortage.to_string()),
        Err(error) => check_result(Err(chain(error)), Status::Down, STAGING_DOWN),
    }
}

/// Checks the installation's marker in a place. Errors in reading the marker are left to the other checks, which report
/// them.
async fn marker(app: &App, place: MarkedLocation, status: Status, down: &str) -> Option<Check> {
    match installation::check_marker(app, place).await {
        Err(InstallationError::Marker { source, .. }) => {
            Some(Check::new(status, format!("{down}: {source}")))
        }
        _ => None,
    }
}

fn check_result<E: fmt::Display>(outcome: Result<(), E>, otherwise: Status, detail: &str) -> Check {
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

/// Formats an error and its causes on one line.
fn chain(error: impl Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Logs a status only when it changes, because probes come every few seconds.
fn log_changes(before: Option<&Checks>, now: &Checks) {
    for (number, (name, check)) in now.named().into_iter().enumerate() {
        let was = before.map(|checks| checks.named()[number].1.status);
        let (detail, cause) = (&check.detail, check.cause.as_deref().unwrap_or("none"));
        match (was, check.status) {
            (None, Status::Ok) => {}
            (Some(was), status) if was == status => {}
            (_, Status::Ok) => tracing::info!(check = name, detail, "a check has recovered"),
            _ => tracing::warn!(check = name, detail, cause, "a check is failing"),
        }
    }
}

async fn within(otherwise: Status, check: impl Future<Output = Check>) -> Check {
    match tokio::time::timeout(CHECK_TIMEOUT, check).await {
        Ok(check) => check,
        Err(_) => Check::new(otherwise, format!("no response within {CHECK_TIMEOUT:?}")),
    }
}

/// Removes the details, which contain paths and host names. The statuses are public, for load balancers.
fn hide_details(report: &mut Value) {
    let checks = report["checks"].as_object_mut().into_iter().flatten();
    for (_, check) in checks {
        check["detail"] = "".into();
    }
}

/// Liveness: always 200.
#[handler]
pub(crate) fn healthz() -> Response {
    Response::builder()
        .content_type("application/json")
        .header(header::CACHE_CONTROL, "no-store")
        .body(r#"{"status":"ok"}"#)
}

/// Readiness: 200 while requests can be served, otherwise 503. While the process is draining, requests are served and it
/// is 503 anyway.
#[handler]
pub(crate) async fn readyz(state: Data<&ApiState>, request: &Request) -> Response {
    let readiness = state.health.readiness(&state.app).await;
    let mut report = serde_json::to_value(&*readiness).expect("a report is JSON");
    let is_draining = state.shutdown.is_draining();
    if is_draining {
        report["status"] = json!(Status::Down);
        report["draining"] = true.into();
    }
    let status = match readiness.status {
        Status::Ok | Status::Degraded if !is_draining => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    if metrics_access::admit(&state, request).await.is_err() {
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
