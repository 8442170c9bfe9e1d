//! What every request gets: an id, a span, a count, and a problem when it fails.

mod cors;
mod host;
mod method_override;
pub(crate) mod real_ip;

use super::{
    connection::{LONGEST_HEAD, MOST_HEADERS, UnreadHead},
    problem::{Code, Problem},
    rate_limit::{RequestLimits, counted},
    state::State,
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

/// The header a request's id is in.
pub const REQUEST_ID: &str = "x-request-id";

/// Longer ids than this are replaced.
const LONGEST_ID: usize = 128;

/// The id of a request, as given or made.
#[derive(Clone, Debug)]
pub struct RequestId(pub String);

/// Where a request stands in a trace (W3C Trace Context, `traceparent`).
#[derive(Clone, Debug)]
pub struct TraceParent(pub String);

/// Marks a request by HEAD: Poem has it answered as GET, and takes the body away.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LooksOnly;

/// The outermost endpoint.
pub(crate) struct Middleware<E> {
    pub(crate) inner: E,
    pub(crate) state: State,
}

impl<E: Endpoint<Output = Response>> Endpoint for Middleware<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> Result<Response> {
        let begun = Instant::now();
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
        let given = trace_parent(&request);
        trace_context::follow(&span, given.as_ref().map(|parent| parent.0.as_str()));
        if let Some(parent) = trace_context::traceparent(&span).map(TraceParent).or(given) {
            request.set_data(parent);
        }
        if let Some(said) = without_empty(&method, request.uri()) {
            *request.uri_mut() = said;
        }
        if method == Method::HEAD {
            request.set_data(LooksOnly);
        }
        request.set_data(id.clone());
        request.set_data(self.state.clone());
        let config = &self.state.app.config;
        let cross_origin = CrossOrigin::of(config, &method, &path, request.headers());
        let allowance = RequestLimits::of(&self.state.counters, &config.limits, &request);
        let of_tus = tus::common_headers(&request);
        let admitted = overridden.and_then(|()| self.admit(&request, &cross_origin));
        let handled = self.handled(request, admitted, &cross_origin, allowance.clone());
        let outcome = AssertUnwindSafe(handled)
            .catch_unwind()
            .instrument(span.clone())
            .await;
        let _entered = span.enter();
        let mut response = match outcome {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => self.refuse(error, &path),
            // The panic hook has said where and why.
            Err(_) => told(Problem::failed("the handler panicked")),
        };
        let api = path == "/v1" || path.starts_with("/v1/");
        response = mount.outside(api, response);
        for (name, value) in &of_tus {
            response
                .headers_mut()
                .entry(name)
                .or_insert_with(|| value.clone());
        }
        let methods = self.state.routes.allowed(&path);
        cross_origin.finish(response.headers_mut(), &methods);
        if let Some(allowance) = allowance {
            allowance.tell(response.headers_mut());
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
        let took = begun.elapsed();
        span.record("http.route", route);
        span.record("http.status", i64::from(response.status().as_u16()));
        span.record("ms", took.as_secs_f64() * 1000.0);
        self.state
            .metrics
            .answered(&method, route, response.status(), took);
        tracing::debug!("answered");
        Ok(response)
    }
}

impl<E: Endpoint<Output = Response>> Middleware<E> {
    /// What may be answered or refused before any handler looks at the request, and then its handler.
    async fn handled(
        &self,
        mut request: Request,
        admitted: Result<(), Problem>,
        cross_origin: &CrossOrigin,
        allowance: Option<RequestLimits>,
    ) -> Result<Response> {
        if let Err(problem) = admitted {
            return Err(problem.into());
        }
        if cross_origin.is_answer() {
            return Ok(StatusCode::NO_CONTENT.into());
        }
        if let Some(allowance) = allowance {
            if let Some(address) = request.remote_addr().as_socket_addr().map(SocketAddr::ip) {
                allowance.admit_address(address).await?;
            }
            if allowance.counts_bytes() {
                request = counted(request, &allowance);
            }
            request.set_data(allowance);
        }
        self.inner.call(request).await
    }
}

impl<E> Middleware<E> {
    /// Whether a request may be looked at: how its head is, by which name it calls, and which site sends it.
    fn admit(&self, request: &Request, cross_origin: &CrossOrigin) -> Result<(), Problem> {
        if let Some(problem) = of_head(request) {
            return Err(problem);
        }
        let hosts = &self.state.hosts;
        hosts.check_host(request.original_uri(), request.headers())?;
        hosts.check_site(request, cross_origin.allows())
    }
}

/// A request is not looked at that has too many headers, or of which only that is known; nor one whose body is in a form
/// that nobody here undoes: its bytes would be taken for what they stand for.
fn of_head(request: &Request) -> Option<Problem> {
    let unread = request.data::<UnreadHead>();
    if unread == Some(&UnreadHead::NoRoom) {
        let detail = "Too many requests with headers as large are under way; try again soon.";
        let problem = Problem::new(Code::RateLimited, detail);
        return Some(problem.with_header(header::RETRY_AFTER, HeaderValue::from_static("1")));
    }
    let detail = if unread.is_some() {
        format!("The request line and the headers must be at most {LONGEST_HEAD} bytes together.")
    } else if request.headers().len() > MOST_HEADERS {
        format!("A request must have at most {MOST_HEADERS} headers.")
    } else {
        return of_coding(request);
    };
    Some(Problem::new(Code::HeadersTooLarge, detail))
}

/// `Transfer-Encoding` (RFC 9112, section 6.1) and `Content-Encoding` (RFC 9110, section 8.4).
fn of_coding(request: &Request) -> Option<Problem> {
    let coded = |name: HeaderName, plain: &str| {
        let values = request.headers().get_all(name).iter();
        let texts = values.map(|value| value.to_str().unwrap_or("?").trim());
        let mut codings = texts.flat_map(|text| text.split(',').map(str::trim));
        codings.any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(plain))
    };
    if coded(header::TRANSFER_ENCODING, "chunked") {
        return Some(Problem::new(
            Code::NotImplemented,
            "Of the transfer codings only `chunked` is understood here.",
        ));
    }
    let has_content = matches!(
        *request.method(),
        Method::POST | Method::PUT | Method::PATCH
    );
    if has_content && coded(header::CONTENT_ENCODING, "identity") {
        let problem = Problem::new(
            Code::UnsupportedMediaType,
            "A body with a `Content-Encoding` is not decoded here; send the bytes as they are.",
        );
        let accepted = HeaderValue::from_static("identity");
        return Some(problem.with_header(header::ACCEPT_ENCODING, accepted));
    }
    None
}

impl<E> Middleware<E> {
    fn refuse(&self, error: Error, path: &str) -> Response {
        let problem = match error.downcast::<Problem>() {
            Ok(problem) => problem,
            Err(error) if error.is::<MethodNotAllowedError>() => {
                not_allowed(self.state.routes.allowed(path))
            }
            // An endpoint that answers errors as its protocol has them.
            Err(error) if error.is_from_response() => return error.into_response(),
            Err(error) => of_poem(&error),
        };
        told(problem)
    }
}

/// Logs a failure of the server, here and nowhere else.
fn told(problem: Problem) -> Response {
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

/// What Poem and poem-openapi refuse by themselves.
fn of_poem(error: &Error) -> Problem {
    use poem_openapi::error::{ContentTypeError, ParseParamError, ParsePathError};
    if let Some(error) = error.downcast_ref::<ParseParamError>() {
        let message = in_our_words(&error.reason);
        return Problem::field(Code::MalformedRequest, error.name, message);
    }
    // An id that cannot be is an id nobody has.
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
        return super::connection::body::broken_off(error);
    }
    match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(Code::TooLarge, "The body is too large."),
        status if status.is_client_error() => {
            Problem::new(Code::MalformedRequest, "The request is malformed.")
        }
        _ => Problem::failed(error.to_string()),
    }
}

/// What poem-openapi says of a parameter, without the names of its types.
fn in_our_words(reason: &str) -> String {
    let bound = |name: &str| {
        let rest = reason.split_once(name)?.1;
        rest.split([',', ')']).next()
    };
    if let Some(most) = bound("maximum(") {
        return format!("must be at most {most}");
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

/// The URI of a question without the parameters that say nothing: `?status=` is a form's way not to ask for a status.
fn without_empty(method: &Method, uri: &Uri) -> Option<Uri> {
    let query = uri.query()?;
    let empty = |pair: &str| {
        pair.split_once('=')
            .is_none_or(|(_, value)| value.is_empty())
    };
    if !method.is_safe() || !query.split('&').any(empty) {
        return None;
    }
    let said: Vec<&str> = query.split('&').filter(|pair| !empty(pair)).collect();
    let target = match said.is_empty() {
        true => uri.path().to_owned(),
        false => format!("{}?{}", uri.path(), said.join("&")),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target.parse().ok()?);
    Uri::from_parts(parts).ok()
}

fn request_id(request: &Request) -> RequestId {
    let given = request.header(REQUEST_ID).filter(|id| {
        (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic())
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
