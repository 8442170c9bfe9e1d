//! The HTTP API: one definition in code, from which the routes and `/openapi.json` are generated.
//!
//! Owns the form of requests and responses. Decides nothing about files: handlers parse, call the core and translate.
//! Rejects early where it can, and keeps nothing of what it rejected.

mod auth;
mod batches;
mod conditional;
mod connection;
mod content_disposition;
mod events;
mod files;
mod health;
mod idempotency;
mod json;
mod long_poll;
mod metrics;
mod metrics_access;
mod middleware;
pub(crate) mod mount;
mod openapi;
mod page_stream;
pub mod problem;
mod range;
mod rate_limit;
mod response;
mod routes;
pub mod schema;
mod shutdown;
mod state;
mod tokens;
mod tus;
mod upload_links;
mod uploads;
mod webhooks;

use batches::Batches;
pub(crate) use connection::{
    body::{ReadError, read_whole},
    run,
};
use events::Events;
use files::Files;
pub(crate) use files::{Download, download};
pub use health::{Check, Checks, HealthCheck, QueueFigures, QueueHealth, Readiness, Status};
pub(crate) use health::{healthz, readyz};
use http::Method;
use landfall_core::config::Config;
pub use long_poll::{FileWaiter, Waiters};
pub use metrics::Metrics;
pub(crate) use metrics::metrics as metrics_page;
pub(crate) use middleware::HeadRequest;
pub(crate) use middleware::real_ip::ForwardedHost;
pub use middleware::{HostPolicy, REQUEST_ID, RequestId, TraceParent};
pub(crate) use middleware::{Middleware, RequestOwner, is_same_origin};
pub(crate) use mount::Mount;
use openapi::ServerInfo;
use poem::{Response, Route, endpoint::make_sync, get};
use poem_openapi::OpenApiService;
pub(crate) use rate_limit::RequestLimits;
pub use rate_limit::redis::SharedCounters;
pub use rate_limit::{Counters, LocalCounters, RateLimitDecision, SLOT_LEASE, today};
pub(crate) use routes::Routes;
pub use shutdown::Shutdown;
pub use state::{ApiState, SharedState};
use tokens::Tokens;
pub(crate) use tus::Tus;
use upload_links::{Links, UploadLinks};
use uploads::Uploads;
use webhooks::Webhooks;

type ApiDefinition = (
    Files,
    Uploads,
    Batches,
    UploadLinks,
    Links,
    Webhooks,
    Events,
    Tokens,
);

/// Paths that are not in the OpenAPI definition.
const UNDOCUMENTED_PATHS: [&str; 2] = ["/openapi.json", "/docs"];

/// Returns the paths of the API and their methods.
#[must_use]
pub(crate) fn routes() -> Routes {
    let mut routes = Routes::from_openapi::<ApiDefinition>();
    for path in UNDOCUMENTED_PATHS {
        routes.add(path, Method::GET);
    }
    // The tus endpoint answers `Allow` itself; this entry gives it its metrics label.
    routes.add("/v1/tus", Method::POST);
    routes.add("/v1/tus/{id}", Method::PATCH);
    routes.add("/v1/links/{secret}/tus", Method::POST);
    routes.add("/v1/links/{secret}/tus/{id}", Method::PATCH);
    routes
}

/// Adds everything under `/v1`, the definition and the docs.
pub(crate) fn endpoints(route: Route, config: &Config) -> Route {
    let definition = openapi::complete(&service().spec());
    let page = openapi::docs::render(&definition);
    let url = config.server.public_url.as_ref();
    let serving = ServerInfo {
        url: url.map(|url| url.as_str().trim_end_matches('/').to_owned()),
        auth: config.auth.mode,
    };
    let spec = openapi::pretty(&openapi::portable(definition, &serving));
    route
        .at("/openapi.json", get(make_sync(move |_| json(&spec))))
        .at(
            "/docs",
            get(make_sync(move |_| openapi::docs::response(&page))),
        )
        .at("/v1/tus", Tus)
        .at("/v1/tus/:id", Tus)
        .at("/v1/links/:secret/tus", Tus)
        .at("/v1/links/:secret/tus/:id", Tus)
        .nest_no_strip("/v1", service())
}

/// Returns the API definition, in OpenAPI 3.1.
#[must_use]
pub fn spec() -> String {
    let definition = openapi::complete(&service().spec());
    openapi::pretty(&openapi::portable(definition, &ServerInfo::default()))
}

fn service() -> OpenApiService<ApiDefinition, ()> {
    OpenApiService::new((Files, Uploads, Batches, UploadLinks, Links, Webhooks, Events, Tokens), "Landfall", env!("CARGO_PKG_VERSION")).description(
        "Accepts uploads, verifies and stores them, and notifies webhooks. Ids are UUIDv7, times are RFC 3339 in UTC, sizes are in bytes, and every error is a problem document (RFC 9457) with a stable code.",
    )
}

fn json(text: &str) -> Response {
    Response::builder()
        .content_type("application/json")
        .body(text.to_owned())
}
