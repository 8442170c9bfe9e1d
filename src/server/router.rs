//! The paths a process answers: the API and the dashboard over it, or what operators ask of a worker.

use crate::{
    api::{
        self, ApiState, Counters, HealthCheck, HostPolicy, LocalCounters, Metrics, Mount, Routes,
        SharedCounters, SharedState, Waiters,
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
use tokio_util::sync::CancellationToken;

/// Paths for those who watch, of workers too.
const OPERATORS: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

/// Serves the API on a listener until told to stop, and then what is under way, for `server.shutdown_timeout`.
///
/// # Errors
/// When the listener has no address.
pub async fn serve(
    app: App,
    queues: Queues,
    meter: Meter,
    listener: TcpListener,
    stop: CancellationToken,
) -> io::Result<()> {
    let waiters = Waiters::default();
    let counters = Arc::new(SharedCounters::new(queues.redis.clone()));
    let view = QueueMonitor::start(queues, waiters.clone(), stop.clone());
    let config = Arc::clone(&app.config);
    let metrics = Metrics::new(meter);
    let router = router(app, waiters, view, counters, metrics, stop.clone());
    api::run(router, &config.server, listener, stop).await
}

/// Serves what operators' machines ask for and nothing else, for a process that has no API: `/healthz`, `/readyz` and
/// `/metrics`.
///
/// # Errors
/// When the listener has no address.
pub async fn serve_metrics(
    app: App,
    queues: Queues,
    meter: Meter,
    listener: TcpListener,
    stop: CancellationToken,
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
        stop: stop.clone(),
    });
    let inner = operators(Route::new()).map_to_response();
    let endpoint = api::Middleware { inner, state };
    api::run(endpoint, &config.server, listener, stop).await
}

fn operators(route: Route) -> Route {
    route
        .at("/healthz", get(api::healthz))
        .at("/readyz", get(api::readyz))
        .at("/metrics", get(api::metrics_page))
}

/// The API and the dashboard as one endpoint; errors are problems, or pages, already.
pub fn router(
    app: App,
    waiters: Waiters,
    view: QueueMonitor,
    counters: Arc<dyn Counters>,
    metrics: Metrics,
    stop: CancellationToken,
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
        stop,
    });
    let config = Arc::clone(&state.app.config);
    let inner = api::endpoints(operators(Route::new()), &config);
    let inner = pages
        .mount(inner, &Dashboard::new(state.clone(), view))
        .map_to_response();
    api::Middleware { inner, state }
}

/// Every method and path of the dashboard, for whoever wants to knock at each.
#[must_use]
pub fn pages() -> Vec<(Method, &'static str)> {
    dashboard::pages().each().collect()
}
