//! The HTTP API: one definition in code, from which the routes and `/openapi.json` are made.
//!
//! Owns what a request may look like and how an answer does. Decides nothing about files: handlers parse, call the
//! core and translate. Refuses early what it can, and leaves nothing of what it refused.

mod answer;
mod auth;
mod batches;
mod body;
mod conditional;
mod cross_origin;
mod definition;
mod disposition;
mod docs;
mod events;
mod files;
mod health;
mod idempotency;
mod json;
mod limits;
mod metrics;
pub mod problem;
mod proxies;
mod pulse;
mod range;
mod routes;
mod server;
mod skin;
mod socket;
mod state;
mod tus;
mod uploads;
mod waiters;
mod webhooks;
pub mod wire;

use crate::{
    shared_counters::SharedCounters,
    web::{self, Dashboard},
    workers_view::WorkersView,
};
use batches::Batches;
use events::Events;
use files::Files;
pub(crate) use files::{Download, download};
pub use health::{Check, Checks, Health, HealthCheck, QueueFigures, Readiness, Status};
use http::Method;
use landfall_core::context::Landfall;
use landfall_workers::{Meter, Queues};
pub use limits::{Counters, LocalCounters, SLOT_LEASE, Taken, today};
pub use metrics::Metrics;
use poem::{Endpoint, EndpointExt, Response, Route, endpoint::make_sync, get};
use poem_openapi::OpenApiService;
pub(crate) use routes::Routes;
use serde_json::Value;
pub use skin::{REQUEST_ID, RequestId, TraceParent};
pub use state::{Shared, State};
use std::{io, sync::Arc};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
pub(crate) use tus::Tus;
use uploads::Uploads;
pub use waiters::{Waiters, Waiting};
use webhooks::Webhooks;

type Api = (Files, Uploads, Batches, Webhooks, Events);

/// Paths that are in no definition.
const PLAIN: [&str; 2] = ["/openapi.json", "/docs"];

/// Paths for those who watch, of workers too.
const OPERATORS: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// Serves the API on a listener until told to stop, and then what is under way, for `server.shutdown_timeout`.
///
/// # Errors
/// When the listener has no address.
pub async fn serve(
    landfall: Landfall,
    queues: Queues,
    meter: Meter,
    listener: TcpListener,
    stop: CancellationToken,
) -> io::Result<()> {
    let waiters = Waiters::default();
    let counters = Arc::new(SharedCounters::new(queues.redis.clone()));
    let view = WorkersView::start(queues, waiters.clone(), stop.clone());
    let config = Arc::clone(&landfall.config);
    let metrics = Metrics::new(meter);
    let router = router(landfall, waiters, view, counters, metrics, stop.clone());
    server::run(router, &config.server, listener, stop).await
}

/// Serves what operators' machines ask for and nothing else, for a process that has no API: `/healthz`, `/readyz` and
/// `/metrics`.
///
/// # Errors
/// When the listener has no address.
pub async fn serve_metrics(
    landfall: Landfall,
    queues: Queues,
    meter: Meter,
    listener: TcpListener,
    stop: CancellationToken,
) -> io::Result<()> {
    let waiters = Waiters::default();
    let view = Arc::new(WorkersView::new(queues));
    let config = Arc::clone(&landfall.config);
    let mut routes = Routes::default();
    for path in OPERATORS {
        routes.add(path, Method::GET);
    }
    let state = State::new(Shared {
        landfall,
        waiters,
        health: HealthCheck::new(view),
        counters: Arc::new(LocalCounters::default()),
        metrics: Metrics::new(meter),
        routes,
        stop: stop.clone(),
    });
    let inner = operators(Route::new()).map_to_response();
    let skin = skin::Skin { inner, state };
    server::run(skin, &config.server, listener, stop).await
}

fn operators(route: Route) -> Route {
    route
        .at("/healthz", get(health::healthz))
        .at("/readyz", get(health::readyz))
        .at("/metrics", get(metrics::metrics))
}

/// The API and the dashboard as one endpoint; errors are problems, or pages, already.
pub fn router(
    landfall: Landfall,
    waiters: Waiters,
    view: WorkersView,
    counters: Arc<dyn Counters>,
    metrics: Metrics,
    stop: CancellationToken,
) -> impl Endpoint<Output = Response> {
    let mut routes = Routes::of::<Api>();
    for path in OPERATORS.into_iter().chain(PLAIN) {
        routes.add(path, Method::GET);
    }
    // Its endpoint answers `Allow` by itself; here it has its label.
    routes.add("/v1/tus", Method::POST);
    routes.add("/v1/tus/{id}", Method::PATCH);
    let pages = web::pages();
    pages.name(&mut routes);
    let state = State::new(Shared {
        landfall,
        waiters,
        health: HealthCheck::new(Arc::new(view.clone())),
        counters,
        metrics,
        routes,
        stop,
    });
    let definition = definition::complete(&service().spec());
    let (spec, page) = (pretty(&definition), docs::render(&definition));
    let inner = operators(Route::new())
        .at("/openapi.json", get(make_sync(move |_| json(&spec))))
        .at("/docs", get(make_sync(move |_| docs::answer(&page))))
        .at("/v1/tus", Tus)
        .at("/v1/tus/:id", Tus)
        .nest_no_strip("/v1", service());
    let inner = pages
        .mount(inner, &Dashboard::new(state.clone(), view))
        .map_to_response();
    skin::Skin { inner, state }
}

/// The definition of the API, in OpenAPI 3.
#[must_use]
pub fn spec() -> String {
    pretty(&definition::complete(&service().spec()))
}

/// Every method and path of the dashboard, for whoever wants to knock at each.
#[must_use]
pub fn pages() -> Vec<(Method, &'static str)> {
    web::pages().each().collect()
}

fn pretty(definition: &Value) -> String {
    format!("{definition:#}")
}

fn service() -> OpenApiService<Api, ()> {
    OpenApiService::new((Files, Uploads, Batches, Webhooks, Events), "Landfall", env!("CARGO_PKG_VERSION")).description(
        "Takes files in, stores them verified, and announces each reliably. Ids are UUIDv7, times RFC 3339 in UTC, sizes bytes; every error is a problem (RFC 9457) with a stable code.",
    )
}

fn json(text: &str) -> Response {
    Response::builder()
        .content_type("application/json")
        .body(text.to_owned())
}
