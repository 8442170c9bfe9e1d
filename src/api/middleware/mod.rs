//! What applies to every request: an id, a span, metrics, and a problem document if it fails. One file per concern; this
//! one puts them in order.

mod access_log;
mod cors;
mod empty_parameters;
mod error_response;
mod host;
mod method_override;
pub(crate) mod real_ip;
mod request_head;
mod request_id;
mod trace_parent;

use super::{
    problem::Problem,
    rate_limit::{RequestLimits, counted},
    state::ApiState,
    tus, upload_links,
};
use access_log::AccessLog;
pub(crate) use access_log::RequestOwner;
use cors::CrossOrigin;
use empty_parameters::without_empty_parameters;
use futures::FutureExt;
pub use host::HostPolicy;
pub(crate) use host::is_same_origin;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use poem::{Endpoint, Request, Response, Result};
pub use request_id::{REQUEST_ID, RequestId};
use std::{net::SocketAddr, panic::AssertUnwindSafe, time::Instant};
pub use trace_parent::TraceParent;
use tracing::{Instrument, Span, field::Empty};

/// Marks a HEAD request: Poem handles it as GET, and removes the body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadRequest;

/// The outermost endpoint.
pub(crate) struct Middleware<E> {
    pub(crate) inner: E,
    pub(crate) state: ApiState,
}

impl<E: Endpoint<Output = Response>> Endpoint for Middleware<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> Result<Response> {
        let started = Instant::now();
        let state = &self.state;
        if let Some(inside) = state.mount.inside(request.uri()) {
            *request.uri_mut() = inside;
        }
        let overridden = method_override::apply(&mut request);
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let id = RequestId::of(&request);
        let span = request_span(&id, &method);
        self.prepare(&mut request, &id, &span);
        let access_log = AccessLog::begin(state, &mut request, &id);
        let config = &state.app.config;
        let link = upload_links::look_up(state, &mut request).await;
        let (headers, link) = (request.headers(), link.as_deref());
        let cross_origin = CrossOrigin::for_request(config, &method, &path, headers, link);
        let limits = RequestLimits::for_request(&state.counters, &config.limits, &request);
        let tus_headers = tus::common_headers(&request);
        let admitted = overridden.and_then(|()| self.admit(&request, &cross_origin));
        let handled = self.handle(request, admitted, &cross_origin, limits.clone());
        let outcome = AssertUnwindSafe(handled)
            .catch_unwind()
            .instrument(span.clone())
            .await;
        let _entered = span.enter();
        let response = match outcome {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => error_response::from_error(error, state, &method, &path),
            // The panic hook has logged where and why.
            Err(_) => error_response::from_problem(Problem::failed("the handler panicked"), state),
        };
        let api = path == "/v1" || path.starts_with("/v1/");
        let mut response = state.mount.outside(api, response);
        let headers = response.headers_mut();
        for (name, value) in &tus_headers {
            headers.entry(name).or_insert_with(|| value.clone());
        }
        cross_origin.finish(headers, &state.routes.allowed(&path));
        if let Some(limits) = limits {
            limits.write_headers(headers);
        }
        write_security_headers(headers);
        id.write_header(headers);
        let route = state.routes.pattern(&path).unwrap_or("none");
        self.record(&span, &method, route, &response, started);
        Ok(match access_log {
            Some(log) => log.finish(route, &path, response),
            None => response,
        })
    }
}

fn request_span(id: &RequestId, method: &Method) -> Span {
    tracing::info_span!(
        "request",
        request.id = %id.0,
        http.method = %method,
        http.route = Empty,
        http.status = Empty,
        ms = Empty,
    )
}

/// A page with its own policy keeps it.
fn write_security_headers(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        let value = HeaderValue::from_static(value);
        headers.entry(name).or_insert(value);
    }
}

impl<E: Endpoint<Output = Response>> Middleware<E> {
    /// Handles what needs no handler (preflights and rejections), then calls the handler.
    async fn handle(
        &self,
        mut request: Request,
        admitted: Result<(), Problem>,
        cross_origin: &CrossOrigin,
        limits: Option<RequestLimits>,
    ) -> Result<Response> {
        if let Err(problem) = admitted {
            return Err(problem.into());
        }
        if cross_origin.is_preflight() {
            return Ok(StatusCode::NO_CONTENT.into());
        }
        if let Some(limits) = limits {
            if let Some(address) = request.remote_addr().as_socket_addr().map(SocketAddr::ip) {
                limits.admit_address(address).await?;
            }
            if limits.counts_bytes() {
                request = counted(request, &limits);
            }
            request.set_data(limits);
        }
        self.inner.call(request).await
    }
}

impl<E> Middleware<E> {
    /// Adds what handlers read from the request.
    fn prepare(&self, request: &mut Request, id: &RequestId, span: &Span) {
        if let Some(parent) = trace_parent::continue_trace(span, request) {
            request.set_data(parent);
        }
        if let Some(kept) = without_empty_parameters(request.method(), request.uri()) {
            *request.uri_mut() = kept;
        }
        if *request.method() == Method::HEAD {
            request.set_data(HeadRequest);
        }
        request.set_data(id.clone());
        request.set_data(self.state.clone());
    }

    /// Checks the head of a request, its host name, and the site that sent it.
    fn admit(&self, request: &Request, cross_origin: &CrossOrigin) -> Result<(), Problem> {
        request_head::check(request)?;
        let hosts = &self.state.hosts;
        hosts.check_host(request.original_uri(), request.headers())?;
        hosts.check_site(request, cross_origin.allows())
    }

    fn record(
        &self,
        span: &Span,
        method: &Method,
        route: &str,
        response: &Response,
        started: Instant,
    ) {
        let (status, took) = (response.status(), started.elapsed());
        span.record("http.route", route);
        span.record("http.status", i64::from(status.as_u16()));
        span.record("ms", took.as_secs_f64() * 1000.0);
        let metrics = &self.state.metrics;
        metrics.record_response(method, route, status, took);
        tracing::debug!("answered");
    }
}
