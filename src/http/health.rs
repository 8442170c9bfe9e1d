//! `/healthz` and `/readyz`: whether the process lives, and whether what it depends on does.

use super::state::State;
use futures::future::BoxFuture;
use http::{StatusCode, header};
use landfall_core::{context::Landfall, sweep};
use poem::{Body, IntoResponse, Response, handler, web::Data};
use serde::Serialize;
use std::{
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

/// A sweep that has not begun for so many intervals is late.
const LATE_AFTER: u32 = 3;

/// What the API cannot see for itself: the way to the workers. Every call ends soon by itself.
pub trait Health: fmt::Debug + Send + Sync {
    /// Whether Redis answers; why not.
    fn redis(&self) -> BoxFuture<'_, Result<(), String>>;

    /// How many workers have said lately that they live; why that cannot be told.
    fn workers(&self) -> BoxFuture<'_, Result<usize, String>>;
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
    pub detail: String,
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
    pub async fn readiness(&self, landfall: &Landfall) -> Arc<Readiness> {
        // Those who come while one looks wait for what it finds.
        let mut last = self.last.lock().await;
        if let Some((at, report)) = &*last
            && at.elapsed() < FRESH
        {
            return Arc::clone(report);
        }
        let report = Arc::new(self.look(landfall).await);
        *last = Some((Instant::now(), Arc::clone(&report)));
        report
    }

    async fn look(&self, landfall: &Landfall) -> Readiness {
        let (database, redis, storage, staging, workers, sweep) = tokio::join!(
            within(Status::Down, async {
                told(landfall.db.ping().await, Status::Down)
            }),
            within(Status::Degraded, async {
                told(self.health.redis().await, Status::Degraded)
            }),
            within(Status::Down, async {
                told(landfall.storage.health().await, Status::Down)
            }),
            within(Status::Down, async {
                told(landfall.staging.health().await, Status::Down)
            }),
            within(Status::Degraded, self.workers()),
            within(Status::Degraded, self.sweep(landfall)),
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

    async fn workers(&self) -> Check {
        match self.health.workers().await {
            Ok(0) => Check::new(Status::Degraded, "no worker runs: uploads wait in staging"),
            Ok(count) => Check::new(Status::Ok, format!("{count} run")),
            Err(error) => Check::new(Status::Degraded, error),
        }
    }

    async fn sweep(&self, landfall: &Landfall) -> Check {
        let late = landfall.config.sweep.interval * LATE_AFTER;
        let last = match sweep::last_run(landfall.db.read()).await {
            Ok(last) => last,
            Err(_) => return Check::new(Status::Degraded, "the database cannot tell"),
        };
        let Some(last) = last else {
            return match self.begun.elapsed() > late {
                true => Check::new(Status::Degraded, "it has never run"),
                false => Check::new(Status::Ok, "it has not run yet"),
            };
        };
        let age = (landfall.clock.now() - last.started_at)
            .to_std()
            .unwrap_or_default();
        let seconds = age.as_secs();
        match age > late {
            true => Check::new(
                Status::Degraded,
                format!("it last began {seconds} s ago, which is late"),
            ),
            false => Check::new(Status::Ok, format!("it last began {seconds} s ago")),
        }
    }
}

impl Check {
    fn new(status: Status, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
        }
    }
}

impl Checks {
    fn worst(&self) -> Status {
        let all = [
            &self.database,
            &self.redis,
            &self.storage,
            &self.staging,
            &self.workers,
            &self.sweep,
        ];
        let worst = all.into_iter().map(|check| check.status).max();
        worst.unwrap_or(Status::Ok)
    }
}

fn told<E: fmt::Display>(outcome: Result<(), E>, otherwise: Status) -> Check {
    match outcome {
        Ok(()) => Check::new(Status::Ok, "it answers"),
        Err(error) => Check::new(otherwise, error.to_string()),
    }
}

async fn within(otherwise: Status, check: impl Future<Output = Check>) -> Check {
    match tokio::time::timeout(PATIENCE, check).await {
        Ok(check) => check,
        Err(_) => Check::new(otherwise, format!("no answer within {PATIENCE:?}")),
    }
}

/// The process lives.
#[handler]
pub(super) fn healthz() -> Response {
    Response::builder()
        .content_type("application/json")
        .header(header::CACHE_CONTROL, "no-store")
        .body(r#"{"status":"ok"}"#)
}

/// 200 while requests can be served, 503 while they cannot.
#[handler]
pub(super) async fn readyz(state: Data<&State>) -> Response {
    let readiness = state.health.readiness(&state.landfall).await;
    let status = match readiness.status {
        Status::Ok | Status::Degraded => StatusCode::OK,
        Status::Down => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = serde_json::to_vec(&*readiness).expect("a report is JSON");
    Response::builder()
        .status(status)
        .content_type("application/json")
        .header(header::CACHE_CONTROL, "no-store")
        .body(Body::from_vec(body))
        .into_response()
}
