//! `/v1/tus`: tus 1.0.0 with all its extensions but checksum-trailer, and the IETF draft on the same URLs.
//!
//! Owns the wire and nothing else: what an upload is and who may write to it is decided by `landfall_core::uploads`.

mod append;
mod checksum;
mod concat;
mod content;
mod create;
mod error;
mod headers;
mod ietf_draft;
mod metadata;
mod request;
mod response;

use super::{
    auth::identify,
    middleware::TraceParent,
    problem::{Code, Problem},
    state::ApiState,
};
use headers::{
    TUS_CHECKSUM_ALGORITHM, TUS_EXTENSION, TUS_MAX_SIZE, TUS_RESUMABLE, TUS_VERSION, UPLOAD_LIMIT,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use landfall_core::{config, tokens::TokenScope};
use poem::{Endpoint, Request, Response, Result};
use request::{TusRequest, value};

/// The version spoken here.
const VERSION: HeaderValue = HeaderValue::from_static("1.0.0");

const EXTENSIONS: &str = "creation,creation-with-upload,creation-defer-length,expiration,checksum,\
     termination,concatenation,concatenation-unfinished";

/// The endpoint of `/v1/tus` and of each upload below it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tus;

/// Which protocol a request speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Tus,
    Draft,
}

impl Endpoint for Tus {
    type Output = Response;

    async fn call(&self, request: Request) -> Result<Response> {
        let dialect = dialect(&request);
        let method = request.method().clone();
        let answer = answer(dialect, &method, request).await;
        Ok(finish(dialect, &method, answer)?)
    }
}

fn dialect(request: &Request) -> Dialect {
    if ietf_draft::is_spoken(request.headers()) {
        Dialect::Draft
    } else {
        Dialect::Tus
    }
}

/// True for paths whose answers follow the protocol, whether or not there is anything at them.
fn is_here(path: &str) -> bool {
    let below = path.strip_prefix("/v1/tus");
    below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What every answer to this request carries, also one that the endpoint has nothing to do with.
pub(super) fn common_headers(request: &Request) -> HeaderMap {
    match is_here(request.uri().path()) {
        true => common(dialect(request), request.method()),
        false => HeaderMap::new(),
    }
}

/// True when a client asks how far its upload is.
pub(super) fn is_offset_request(request: &Request) -> bool {
    is_here(request.uri().path()) && *request.method() == Method::HEAD
}

async fn answer(dialect: Dialect, method: &Method, request: Request) -> Result<Response, Problem> {
    let state = request.data::<ApiState>().cloned();
    let state = state.ok_or_else(|| Problem::failed("a request without state"))?;
    let app = state.app.clone();
    if *method == Method::OPTIONS {
        return Ok(options(&app.config.uploads));
    }
    let scope = if *method == Method::GET {
        TokenScope::Read
    } else {
        TokenScope::Upload
    };
    let path = request.raw_path_param("id").map(str::to_owned);
    let request = TusRequest {
        app,
        metrics: state.metrics.clone(),
        caller: Box::pin(identify(&request, scope)).await?,
        traceparent: request.data::<TraceParent>().map(|trace| trace.0.clone()),
        headers: request.headers().clone(),
        id: path.as_deref().and_then(|text| text.parse().ok()),
        body: request.into_body(),
    };
    // Boxed each by itself: a thousand slow uploads would otherwise each hold what the largest of these needs.
    match (dialect, path.is_some()) {
        (_, true) if *method == Method::GET => Box::pin(content::content(request)).await,
        (Dialect::Draft, below) => Box::pin(ietf_draft::serve(method, below, request)).await,
        (Dialect::Tus, below) => {
            require_version(&request)?;
            match (method.as_str(), below) {
                ("POST", false) => Box::pin(create::create(request)).await,
                ("HEAD", true) => Box::pin(append::head(request)).await,
                ("PATCH", true) => Box::pin(append::append(request)).await,
                ("DELETE", true) => Box::pin(append::terminate(request)).await,
                (_, below) => Err(not_allowed(below)),
            }
        }
    }
}

/// What this server can do, whoever asks and in whatever version.
fn options(uploads: &config::UploadsConfig) -> Response {
    let mut response = Response::from(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(TUS_VERSION, VERSION);
    headers.insert(TUS_EXTENSION, HeaderValue::from_static(EXTENSIONS));
    headers.insert(TUS_MAX_SIZE, HeaderValue::from(uploads.max_file_size.0));
    headers.insert(
        TUS_CHECKSUM_ALGORITHM,
        HeaderValue::from_static(checksum::ALGORITHMS),
    );
    headers.insert(UPLOAD_LIMIT, value(ietf_draft::limit(uploads)));
    response
}

fn require_version(request: &TusRequest) -> Result<(), Problem> {
    if request.headers.get(TUS_RESUMABLE) == Some(&VERSION) {
        return Ok(());
    }
    let problem = Problem::new(Code::UnsupportedVersion, "send Tus-Resumable: 1.0.0");
    Err(problem.with_header(TUS_VERSION, VERSION))
}

fn not_allowed(below: bool) -> Problem {
    let allow = if below {
        "GET, HEAD, PATCH, DELETE, OPTIONS"
    } else {
        "POST, OPTIONS"
    };
    Problem::new(Code::MethodNotAllowed, format!("allowed methods: {allow}"))
        .with_header(header::ALLOW, value(allow))
}

/// What every answer carries, refusals too.
fn common(dialect: Dialect, method: &Method) -> HeaderMap {
    let mut common = HeaderMap::new();
    if *method != Method::OPTIONS && dialect == Dialect::Tus {
        common.insert(TUS_RESUMABLE, VERSION);
    }
    if *method == Method::HEAD {
        common.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    common
}

fn finish(
    dialect: Dialect,
    method: &Method,
    answer: Result<Response, Problem>,
) -> Result<Response, Problem> {
    let common = common(dialect, method);
    match answer {
        Ok(mut response) => {
            response.headers_mut().extend(common);
            Ok(response)
        }
        Err(mut problem) => {
            let common = common.into_iter();
            problem
                .headers
                .extend(common.filter_map(|(name, value)| Some((name?, value))));
            Err(problem)
        }
    }
}
