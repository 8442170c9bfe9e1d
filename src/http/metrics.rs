//! `/metrics`, in the text format of OpenMetrics. Labels are routes and statuses, never ids or names.

use super::state::State;
use entity::file::FileStatus;
use http::{Method, StatusCode};
use landfall_core::files;
use poem::{IntoResponse, Response, handler, web::Data};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use sea_orm::ActiveEnum;
use std::{sync::Arc, time::Duration};

/// In seconds: from a look-up to a long upload.
const BUCKETS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0, 600.0,
];

/// Statuses files only pass through, or that want somebody's attention: few enough to be counted.
const COUNTED: [FileStatus; 4] = [
    FileStatus::Uploading,
    FileStatus::Staged,
    FileStatus::Finalizing,
    FileStatus::Failed,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    method: &'static str,
    route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InStatus {
    status: String,
}

/// What this process counts; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    requests: Family<Answered, Counter>,
    durations: Family<Route, Histogram>,
    files: Family<InStatus, Gauge>,
    received: Counter,
}

impl Metrics {
    /// Everything at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("landfall");
        let requests = Family::default();
        let durations = Family::new_with_constructor(histogram as fn() -> Histogram);
        let (files, received) = (Family::default(), Counter::default());
        registry.register("http_requests", "Requests answered", requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "Time from the request's headers to the answer's",
            Unit::Seconds,
            durations.clone(),
        );
        registry.register(
            "files",
            "Files by status, those that are under way or failed",
            files.clone(),
        );
        registry.register_with_unit(
            "received",
            "Bytes of files staged",
            Unit::Bytes,
            received.clone(),
        );
        Self {
            registry: Arc::new(registry),
            requests,
            durations: Family::clone(&durations),
            files,
            received,
        }
    }

    /// A request was answered.
    pub fn answered(&self, method: &Method, route: &str, status: StatusCode, took: Duration) {
        let (method, route) = (known(method), route.to_owned());
        let labels = Answered {
            method,
            route: route.clone(),
            status: status.as_u16(),
        };
        self.requests.get_or_create(&labels).inc();
        let route = Route { method, route };
        self.durations
            .get_or_create(&route)
            .observe(took.as_secs_f64());
    }

    /// Bytes of a file are staged.
    pub fn received(&self, bytes: u64) {
        self.received.inc_by(bytes);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

/// Clients may make up methods; labels must not grow with them.
fn known(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN
        .into_iter()
        .find(|known| *known == method.as_str())
        .unwrap_or("other")
}

/// The figures of this process, and of the database as it is now.
#[handler]
pub(super) async fn metrics(state: Data<&State>) -> Response {
    let metrics = &state.metrics;
    match files::counts_by_status(state.landfall.db.read(), &COUNTED).await {
        Ok(counts) => {
            for status in COUNTED {
                let count = counts.get(&status).copied().unwrap_or(0);
                let labels = InStatus {
                    status: status.to_value(),
                };
                let gauge = metrics.files.get_or_create(&labels);
                gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
        // What this process counted is told all the same; old figures are not.
        Err(error) => {
            metrics.files.clear();
            tracing::warn!(%error, "files could not be counted for /metrics");
        }
    }
    let mut text = String::new();
    encode(&mut text, &metrics.registry).expect("a string takes any text");
    Response::builder()
        .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
        .body(text)
        .into_response()
}
