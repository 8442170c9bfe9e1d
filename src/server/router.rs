//! The routes of a process: the API and the dashboard, or the monitoring paths of a worker.

use crate::{
    api::{
        self, ApiState, Counters, HealthCheck, HostPolicy, LocalCounters, Metrics, Mount, Routes,
        SharedCounters, SharedState, Shutdown, Waiters,
    },
    dashboard::{self, Dashboard},
    server::queue_monitor::QueueMonitor,
};
use http::Method;
use landfall_core::app::App;
use landfall_workers::{Meter, Queues};
use poem::{Endpoint, EndpointExt, Response, Route, get};
use std::{io, sync::Arc};
use tokio::net::TcpListener;

/// The monitoring paths, also served by workers.
const OPERATORS: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// Serves the API on a listener until the shutdown, then finishes the requests in progress within `server.shutdown_timeout`.
///
/// # Errors
/// If the listener has no address.
pub async fn serve(
    app: App,
    queues: Queues,
    meter: Meter,
    listener: TcpListener,
    shutdown: Shutdown,
) -> io::Result<()> {
    let waiters = Waiters::default();
    let counters = Arc::new(SharedCounters::new(queues.redis.clone()));
    let view = QueueMonitor::start(queues, waiters.clone(), shutdown.stop().clone());
    let config = Arc::clone(&app.config);
    let metrics = Metrics::new(meter);
    let router = router(app, waiters, view, counters, metrics, shutdown.clone());
    api::run(router, &config.server, listener, shutdown).await
}

/// Serves only `/healthz`, `/readyz` and `/metrics`, for a process without an API.
///
/// # Errors
/// If the listener has no address.
pub async fn serve_metrics(
    app: App,
    queues: Queues,
    meter: Meter,
    listener: TcpListener,
    shutdown: Shutdown,
) -> io::Result<()> {
    let waiters = Waiters::default();
    let view = Arc::new(QueueMonitor::new(queues));
    let config = Arc::clone(&app.config);
    let hosts = HostPolicy::for_metrics(&config, listener.local_addr()?);
    let mut routes = Routes::default();
    for path in OPERATORS {
        routes.add(path, Method::GET);
    }
    let state = ApiState::new(SharedState {
        mount: Mount::new(&app),
        app,
        waiters,
        health: HealthCheck::new(view),
        counters: Arc::new(LocalCounters::default()),
        metrics: Metrics::new(meter),
        routes,
        hosts,
        metrics_open: true,
        shutdown: shutdown.clone(),
    });
    let inner = operators(Route::new()).map_to_response();
    let endpoint = api::Middleware { inner, state };
    api::run(endpoint, &config.server, listener, shutdown).await
}

fn operators(route: Route) -> Route {
    route
        .at("/healthz", get(api::healthz))
        .at("/readyz", get(api::readyz))
        .at("/metrics", get(api::metrics_page))
}

/// Returns the API and the dashboard as one endpoint, which converts errors to problems or pages.
pub fn router(
    app: App,
    waiters: Waiters,
    view: QueueMonitor,
    counters: Arc<dyn Counters>,
    metrics: Metrics,
    shutdown: Shutdown,
) -> impl Endpoint<Output = Response> {
    let mut routes = api::routes();
    for path in OPERATORS {
        routes.add(path, Method::GET);
    }
    let pages = dashboard::pages();
    pages.name(&mut routes);
    let hosts = HostPolicy::new(&app.config, &app.public_url);
    let state = ApiState::new(SharedState {
        mount: Mount::new(&app),
        app,
        waiters,
        health: HealthCheck::new(Arc::new(view.clone())),
        counters,
        metrics,
        routes,
        hosts,
        metrics_open: false,
        shutdown,
    });
    let config = Arc::clone(&state.app.config);
    let inner = api::endpoints(operators(Route::new()), &config);
    let inner = pages
        .mount(inner, &Dashboard::new(state.clone(), view))
        .map_to_response();
    api::Middleware { inner, state }
}

/// Returns every method and path of the dashboard, for tests.
#[must_use]
pub fn pages() -> Vec<(Method, &'static str)> {
    dashboard::pages().each().collect()
}
