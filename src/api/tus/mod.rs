//! `/v1/tus`: tus 1.0.0 with all extensions except checksum-trailer, and the IETF draft on the same URLs. The same below
//! each upload link, where the link is the credential, reads no bytes and deletes no complete upload.
//!
//! Owns only the protocols: `landfall_core::uploads` decides what an upload is and who may write to it.

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
    upload_links::{LinkAccess, is_link_path},
};
use headers::{
    TUS_CHECKSUM_ALGORITHM, TUS_EXTENSION, TUS_MAX_SIZE, TUS_RESUMABLE, TUS_VERSION, UPLOAD_LIMIT,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use landfall_core::{
    app::App,
    config,
    tokens::{Identity, TokenScope},
    upload_links::{self, UploadLink},
};
use poem::{Endpoint, Request, Response, Result};
use request::{TusRequest, value};
use std::sync::Arc;

/// The supported version.
const VERSION: HeaderValue = HeaderValue::from_static("1.0.0");

const EXTENSIONS: &str = "creation,creation-with-upload,creation-defer-length,expiration,checksum,\
     termination,concatenation,concatenation-unfinished";

/// The endpoint of `/v1/tus` and of each upload below it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tus;

/// The protocol of a request.
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
        let handle = handle(dialect, &method, request).await;
        Ok(finish(dialect, &method, handle)?)
    }
}

fn dialect(request: &Request) -> Dialect {
    if ietf_draft::is_spoken(request.headers()) {
        Dialect::Draft
    } else {
        Dialect::Tus
    }
}

/// Whether the path is the endpoint, in the API or below an upload link, or an upload below it that may exist.
pub(super) fn is_tus_path(path: &str) -> bool {
    let rest = match path.strip_prefix("/v1/links/") {
        Some(rest) => rest.split_once('/').map(|(_, rest)| rest),
        None => path.strip_prefix("/v1/"),
    };
    let rest = rest.and_then(|rest| rest.strip_prefix("tus"));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The headers of every response to this request, including those not made by this endpoint.
pub(super) fn common_headers(request: &Request) -> HeaderMap {
    match is_tus_path(request.uri().path()) {
        true => common(dialect(request), request.method()),
        false => HeaderMap::new(),
    }
}

/// Whether a client requests the offset of its upload.
pub(super) fn is_offset_request(request: &Request) -> bool {
    is_tus_path(request.uri().path()) && *request.method() == Method::HEAD
}

async fn handle(dialect: Dialect, method: &Method, request: Request) -> Result<Response, Problem> {
    let state = request.data::<ApiState>().cloned();
    let state = state.ok_or_else(|| Problem::failed("a request without state"))?;
    let is_link = request.raw_path_param("secret").is_some();
    if *method == Method::OPTIONS {
        let app = match is_link {
            true => LinkAccess::from_any_request(&request).await?.state.app,
            false => state.app.clone(),
        };
        return Ok(options(&app.config.uploads));
    }
    let path = request.raw_path_param("id").map(str::to_owned);
    let below = path.is_some();
    if is_link && below && *method == Method::GET {
        return Err(not_allowed(true, true));
    }
    let (app, caller, link) = Box::pin(authorize(&state, &request, is_link)).await?;
    let mut request = TusRequest {
        app,
        metrics: state.metrics.clone(),
        caller,
        traceparent: request.data::<TraceParent>().map(|trace| trace.0.clone()),
        headers: request.headers().clone(),
        base: base_of(request.uri().path(), below),
        link,
        id: path.as_deref().and_then(|text| text.parse().ok()),
        body: request.into_body(),
    };
    if let (Some(link), Some(id)) = (&request.link, request.id)
        && !upload_links::covers(request.app.db.read(), link.id, &[id]).await?
    {
        request.id = None;
    }
    // Each future is boxed separately; otherwise a thousand slow uploads would each need the memory of the largest one.
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
                (_, below) => Err(not_allowed(below, is_link)),
            }
        }
    }
}

/// Returns the app with the limits that apply, who the request comes from, and its upload link.
async fn authorize(
    state: &ApiState,
    request: &Request,
    is_link: bool,
) -> Result<(App, Identity, Option<Arc<UploadLink>>), Problem> {
    if is_link {
        let access = LinkAccess::from_request(request).await?;
        return Ok((access.state.app, access.caller, Some(access.link)));
    }
    let scope = match *request.method() == Method::GET {
        true => TokenScope::Read,
        false => TokenScope::Upload,
    };
    Ok((state.app.clone(), identify(request, scope).await?, None))
}

/// Returns the path of the endpoint: of the request, or the one above it. Signed-in browsers use another path, which
/// rewrites the locations.
fn base_of(path: &str, below: bool) -> String {
    let base = match below {
        true => path.rsplit_once('/').map_or(path, |(base, _)| base),
        false => path,
    };
    match is_link_path(base) {
        true => base.to_owned(),
        false => "/v1/tus".to_owned(),
    }
}

/// Responds to OPTIONS with the server's capabilities, for any client and version.
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

fn not_allowed(below: bool, is_link: bool) -> Problem {
    let allow = match (below, is_link) {
        (true, false) => "GET, HEAD, PATCH, DELETE, OPTIONS",
        (true, true) => "HEAD, PATCH, DELETE, OPTIONS",
        (false, _) => "POST, OPTIONS",
    };
    Problem::new(Code::MethodNotAllowed, format!("allowed methods: {allow}"))
        .with_header(header::ALLOW, value(allow))
}

/// The headers of every response, including rejections.
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
    handle: Result<Response, Problem>,
) -> Result<Response, Problem> {
    let common = common(dialect, method);
    match handle {
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
