//! What applies to every request: an id, a span, metrics, and a problem document if it fails.

mod cors;
mod host;
mod method_override;
pub(crate) mod real_ip;

use super::{
    connection::{MAX_HEAD_LEN, MAX_HEADERS, UnreadHead},
    problem::{Code, Problem},
    rate_limit::{RequestLimits, counted},
    state::ApiState,
    tus,
};
use cors::CrossOrigin;
use futures::FutureExt;
pub use host::HostPolicy;
pub(crate) use host::is_same_origin;
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use landfall_core::trace_context;
use poem::{
    Endpoint, Error, Request, Response, Result,
    error::{MethodNotAllowedError, NotFoundError, ReadBodyError, ResponseError},
};
use std::{net::SocketAddr, panic::AssertUnwindSafe, time::Instant};
use tracing::{Instrument, field::Empty};
use uuid::Uuid;

/// The header with the request's id.
pub const REQUEST_ID: &str = "x-request-id";

/// Maximum length of a client's request id; longer ones are replaced.
const MAX_REQUEST_ID_LEN: usize = 128;

/// The id of a request, given by the client or generated.
#[derive(Clone, Debug)]
pub struct RequestId(pub String);

/// The position of a request in a trace (W3C Trace Context, `traceparent`).
#[derive(Clone, Debug)]
pub struct TraceParent(pub String);

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
        let mount = &self.state.mount;
        if let Some(inside) = mount.inside(request.uri()) {
            *request.uri_mut() = inside;
        }
        let overridden = method_override::apply(&mut request);
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        let id = request_id(&request);
        let span = tracing::info_span!(
            "request",
            request.id = %id.0,
            http.method = %method,
            http.route = Empty,
            http.status = Empty,
            ms = Empty,
        );
        let client_parent = trace_parent(&request);
        trace_context::follow(
            &span,
            client_parent.as_ref().map(|parent| parent.0.as_str()),
        );
        if let Some(parent) = trace_context::traceparent(&span)
            .map(TraceParent)
            .or(client_parent)
        {
            request.set_data(parent);
        }
        if let Some(kept) = without_empty_parameters(&method, request.uri()) {
            *request.uri_mut() = kept;
        }
        if method == Method::HEAD {
            request.set_data(HeadRequest);
        }
        request.set_data(id.clone());
        request.set_data(self.state.clone());
        let config = &self.state.app.config;
        let cross_origin = CrossOrigin::for_request(config, &method, &path, request.headers());
        let limits = RequestLimits::for_request(&self.state.counters, &config.limits, &request);
        let tus_headers = tus::common_headers(&request);
        let admitted = overridden.and_then(|()| self.admit(&request, &cross_origin));
        let handled = self.handle(request, admitted, &cross_origin, limits.clone());
        let outcome = AssertUnwindSafe(handled)
            .catch_unwind()
            .instrument(span.clone())
            .await;
        let _entered = span.enter();
        let mut response = match outcome {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => self.error_response(error, &path),
            // The panic hook has logged where and why.
            Err(_) => log_failure(Problem::failed("the handler panicked")),
        };
        let api = path == "/v1" || path.starts_with("/v1/");
        response = mount.outside(api, response);
        for (name, value) in &tus_headers {
            response
                .headers_mut()
                .entry(name)
                .or_insert_with(|| value.clone());
        }
        let methods = self.state.routes.allowed(&path);
        cross_origin.finish(response.headers_mut(), &methods);
        if let Some(limits) = limits {
            limits.write_headers(response.headers_mut());
        }
        for (name, value) in [
            (header::X_FRAME_OPTIONS, "DENY"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ] {
            let value = HeaderValue::from_static(value);
            response.headers_mut().entry(name).or_insert(value);
        }
        let value = HeaderValue::from_str(&id.0).expect("an id is visible ASCII");
        response.headers_mut().insert(REQUEST_ID, value);
        let route = self.state.routes.pattern(&path).unwrap_or("none");
        let took = started.elapsed();
        span.record("http.route", route);
        span.record("http.status", i64::from(response.status().as_u16()));
        span.record("ms", took.as_secs_f64() * 1000.0);
        self.state
            .metrics
            .record_response(&method, route, response.status(), took);
        tracing::debug!("answered");
        Ok(response)
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
    /// Checks the head of a request, its host name, and the site that sent it.
    fn admit(&self, request: &Request, cross_origin: &CrossOrigin) -> Result<(), Problem> {
        if let Some(problem) = check_head(request) {
            return Err(problem);
        }
        let hosts = &self.state.hosts;
        hosts.check_host(request.original_uri(), request.headers())?;
        hosts.check_site(request, cross_origin.allows())
    }
}

/// Rejects a request with too many or too large headers, or with a body encoding that is not supported: its bytes would
/// be stored encoded.
fn check_head(request: &Request) -> Option<Problem> {
    let unread = request.data::<UnreadHead>();
    if unread == Some(&UnreadHead::NoRoom) {
        let detail = "Too many requests with large headers are in progress. Try again soon.";
        let problem = Problem::new(Code::RateLimited, detail);
        return Some(problem.with_header(header::RETRY_AFTER, HeaderValue::from_static("1")));
    }
    let detail = if unread.is_some() {
        format!("The request line and headers must be at most {MAX_HEAD_LEN} bytes in total.")
    } else if request.headers().len() > MAX_HEADERS {
        format!("A request must have at most {MAX_HEADERS} headers.")
    } else {
        return check_encoding(request);
    };
    Some(Problem::new(Code::HeadersTooLarge, detail))
}

/// `Transfer-Encoding` (RFC 9112, section 6.1) and `Content-Encoding` (RFC 9110, section 8.4).
fn check_encoding(request: &Request) -> Option<Problem> {
    let coded = |name: HeaderName, plain: &str| {
        let values = request.headers().get_all(name).iter();
        let texts = values.map(|value| value.to_str().unwrap_or("?").trim());
        let mut codings = texts.flat_map(|text| text.split(',').map(str::trim));
        codings.any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(plain))
    };
    if coded(header::TRANSFER_ENCODING, "chunked") {
        return Some(Problem::new(
            Code::NotImplemented,
            "The only supported transfer coding is `chunked`.",
        ));
    }
    let has_content = matches!(
        *request.method(),
        Method::POST | Method::PUT | Method::PATCH
    );
    if has_content && coded(header::CONTENT_ENCODING, "identity") {
        let problem = Problem::new(
            Code::UnsupportedMediaType,
            "A `Content-Encoding` is not supported. Send the bytes unencoded.",
        );
        let accepted = HeaderValue::from_static("identity");
        return Some(problem.with_header(header::ACCEPT_ENCODING, accepted));
    }
    None
}

impl<E> Middleware<E> {
    fn error_response(&self, error: Error, path: &str) -> Response {
        let problem = match error.downcast::<Problem>() {
            Ok(problem) => problem,
            Err(error) if error.is::<MethodNotAllowedError>() => {
                not_allowed(self.state.routes.allowed(path))
            }
            // An endpoint with protocol-specific error responses.
            Err(error) if error.is_from_response() => return error.into_response(),
            Err(error) => from_poem_error(&error),
        };
        log_failure(problem)
    }
}

/// Logs a server failure; the only place that does.
fn log_failure(problem: Problem) -> Response {
    if problem.code.status().is_server_error() {
        let causes = problem.causes();
        let causes = causes.as_deref().unwrap_or("none");
        match problem.code {
            Code::Internal => {
                tracing::error!(code = problem.code.as_str(), causes, "request failed")
            }
            _ => tracing::warn!(code = problem.code.as_str(), causes, "request failed"),
        }
    }
    problem.as_response()
}

fn not_allowed(allowed: Vec<Method>) -> Problem {
    let allowed: Vec<&str> = allowed.iter().map(Method::as_str).collect();
    let allowed = allowed.join(", ");
    let problem = Problem::new(
        Code::MethodNotAllowed,
        format!("Allowed methods: {allowed}."),
    );
    match HeaderValue::from_str(&allowed) {
        Ok(value) => problem.with_header(header::ALLOW, value),
        Err(_) => problem,
    }
}

/// Converts errors of Poem and poem-openapi.
fn from_poem_error(error: &Error) -> Problem {
    use poem_openapi::error::{ContentTypeError, ParseParamError, ParsePathError};
    if let Some(error) = error.downcast_ref::<ParseParamError>() {
        let message = rephrase(&error.reason);
        return Problem::field(Code::MalformedRequest, error.name, message);
    }
    // An invalid id is an id that does not exist.
    if error.is::<ParsePathError>()
        || error.is::<poem::error::ParsePathError>()
        || error.is::<NotFoundError>()
    {
        return Problem::new(Code::NotFound, "No such path.");
    }
    if let Some(error) = error.downcast_ref::<ContentTypeError>() {
        return Problem::new(Code::UnsupportedMediaType, error.to_string());
    }
    if let Some(ReadBodyError::Io(error)) = error.downcast_ref::<ReadBodyError>() {
        return super::connection::body::interrupted(error);
    }
    match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(Code::TooLarge, "The body is too large."),
        status if status.is_client_error() => {
            Problem::new(Code::MalformedRequest, "The request is malformed.")
        }
        _ => Problem::failed(error.to_string()),
    }
}

/// Rewrites poem-openapi's message about a parameter, without its type names.
fn rephrase(reason: &str) -> String {
    let bound = |name: &str| {
        let rest = reason.split_once(name)?.1;
        rest.split([',', ')']).next()
    };
    if let Some(max) = bound("maximum(") {
        return format!("must be at most {max}");
    }
    if let Some(least) = bound("minimum(") {
        return format!("must be at least {least}");
    }
    let text = reason.split(" (occurred while parsing").next();
    let text = text.unwrap_or(reason);
    let text = text.split_once("\": ").map_or(text, |(_, text)| text);
    match text {
        "Expect a valid enumeration value." => {
            "must be one of the values listed in /openapi.json".to_owned()
        }
        _ => text.to_owned(),
    }
}

/// Removes empty parameters from the URI of a GET: a form sends `?status=` for no filter.
fn without_empty_parameters(method: &Method, uri: &Uri) -> Option<Uri> {
    let query = uri.query()?;
    let empty = |pair: &str| {
        pair.split_once('=')
            .is_none_or(|(_, value)| value.is_empty())
    };
    if !method.is_safe() || !query.split('&').any(empty) {
        return None;
    }
    let kept: Vec<&str> = query.split('&').filter(|pair| !empty(pair)).collect();
    let target = match kept.is_empty() {
        true => uri.path().to_owned(),
        false => format!("{}?{}", uri.path(), kept.join("&")),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target.parse().ok()?);
    Uri::from_parts(parts).ok()
}

fn request_id(request: &Request) -> RequestId {
    let given = request.header(REQUEST_ID).filter(|id| {
        (1..=MAX_REQUEST_ID_LEN).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_graphic())
    });
    RequestId(given.map_or_else(|| Uuid::now_v7().to_string(), str::to_owned))
}

/// Version 00 only: `00-<32 hex>-<16 hex>-<2 hex>`, neither id all zeros.
fn trace_parent(request: &Request) -> Option<TraceParent> {
    let text = request.header("traceparent")?;
    let fields: Vec<&str> = text.split('-').collect();
    let [version, trace, parent, flags] = fields[..] else {
        return None;
    };
    let hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let some = |text: &str| text.bytes().any(|byte| byte != b'0');
    let sane = version == "00"
        && hex(trace, 32)
        && hex(parent, 16)
        && hex(flags, 2)
        && some(trace)
        && some(parent);
    sane.then(|| TraceParent(text.to_owned()))
}
