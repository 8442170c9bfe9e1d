//! `/metrics`, in the OpenMetrics text format; docs/metrics.md describes each metric.
//!
//! Owns the request metrics; the workers own the job metrics. Labels are routes, statuses, queues and the like, never
//! ids or names, so their number does not grow with the data or the requests.

mod gauges;
mod process;

use super::{metrics_access, state::ApiState};
use http::{Method, StatusCode};
use landfall_workers::{Meter, Stage};
use poem::{Request, Response, Result, handler, web::Data};
use prometheus_client::{
    encoding::{
        EncodeLabelSet,
        text::{encode_eof, encode_registry},
    },
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};
use std::{sync::Arc, time::Duration};

/// Prefix of Landfall's own metrics.
const PREFIX: &str = "landfall";

/// In seconds, from a lookup to a long upload.
const BUCKETS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 60.0, 600.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    method: &'static str,
    route: String,
}

/// The metrics of this process; cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabels, Histogram>,
    received: Counter,
    meter: Meter,
}

impl Metrics {
    /// Starts with all request metrics at zero, and the job metrics of `meter`.
    #[must_use]
    pub fn new(meter: Meter) -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let requests = Family::default();
        let durations = Family::new_with_constructor(histogram as fn() -> Histogram);
        let received = Counter::default();
        registry.register("http_requests", "Responses sent", requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "Time from the request headers to the response headers",
            Unit::Seconds,
            durations.clone(),
        );
        registry.register_with_unit(
            "received",
            "Upload bytes received, interrupted uploads included",
            Unit::Bytes,
            received.clone(),
        );
        meter.register(&mut registry);
        Self {
            registry: Arc::new(registry),
            requests,
            durations: Family::clone(&durations),
            received,
            meter,
        }
    }

    /// Records a response.
    pub fn record_response(
        &self,
        method: &Method,
        route: &str,
        status: StatusCode,
        took: Duration,
    ) {
        let (method, route) = (known(method), route.to_owned());
        let labels = RequestLabels {
            method,
            route: route.clone(),
            status: status.as_u16(),
        };
        self.requests.get_or_create(&labels).inc();
        let route = RouteLabels { method, route };
        self.durations
            .get_or_create(&route)
            .observe(took.as_secs_f64());
    }

    /// Records received upload bytes.
    pub fn record_received(&self, bytes: u64) {
        self.received.inc_by(bytes);
    }

    /// Records how long staging the bytes of one request took, and whether they were accepted.
    pub fn record_staged(&self, accepted: bool, took: Duration) {
        let outcome = if accepted { "staged" } else { "refused" };
        self.meter.took(Stage::Receive, outcome, took);
    }
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

/// Maps unknown methods to one label, because clients may invent methods.
fn known(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN
        .into_iter()
        .find(|known| *known == method.as_str())
        .unwrap_or("other")
}

/// Serves the metrics of this process and of the installation.
#[handler]
pub(crate) async fn metrics(state: Data<&ApiState>, request: &Request) -> Result<Response> {
    metrics_access::admit(&state, request).await?;
    let now = gauges::now(&state).await;
    let mut text = String::new();
    for registry in [&state.metrics.registry, &now, &process::now()] {
        encode_registry(&mut text, registry).expect("a string takes any text");
    }
    encode_eof(&mut text).expect("a string takes any text");
    Ok(Response::builder()
        .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
        .body(text))
}
