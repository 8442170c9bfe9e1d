//! Resumable uploads for HTTP (draft-ietf-httpbis-resumable-upload), interop versions 6 and 8, on the same URLs.
//!
//! A client selects it with `Upload-Complete` or `Upload-Draft-Interop-Version`. The interim response 104 is not sent,
//! so a client that is interrupted during creation starts over.

use super::{
    create, error,
    headers::{
        self, INTEROP_VERSION, TUS_RESUMABLE, UPLOAD_COMPLETE, UPLOAD_LENGTH, UPLOAD_LIMIT,
        UPLOAD_OFFSET,
    },
    request::{TusRequest, value},
    response::with_state,
};
use crate::api::{
    content_disposition::Disposition,
    problem::{Code, Problem},
};
use entity::upload::{Model, UploadStatus};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use landfall_core::{
    config,
    uploads::{self, Append, NewUpload, UploadError, UploadShape},
};
use poem::Response;
use serde_json::{Value, json};

/// The media type of a body that is part of a representation.
const PARTIAL_UPLOAD: &str = "application/partial-upload";
/// The supported interop versions.
const VERSIONS: [&str; 2] = ["6", "8"];
/// The registry of the draft's problem types.
const TYPES: &str = "https://iana.org/assignments/http-problem-types";

/// Whether a request uses the draft.
pub(super) fn is_spoken(headers: &HeaderMap) -> bool {
    !headers.contains_key(TUS_RESUMABLE)
        && (headers.contains_key(UPLOAD_COMPLETE) || headers.contains_key(INTEROP_VERSION))
}

/// `Upload-Limit`: a dictionary (RFC 9651) of sizes in bytes and an age in seconds.
pub(super) fn limit(uploads: &config::UploadsConfig) -> String {
    let (size, age) = (uploads.max_file_size.0, uploads.session_ttl.as_secs());
    format!("max-size={size}, min-size=0, max-append-size={size}, min-append-size=0, max-age={age}")
}

pub(super) async fn serve(
    method: &Method,
    below: bool,
    request: TusRequest,
) -> Result<Response, Problem> {
    let version = version(&request)?;
    let limit = value(limit(&request.app.config.uploads));
    let mut response = match (method.as_str(), below) {
        ("POST", false) => create(request).await?,
        ("HEAD", true) => head(request).await?,
        ("PATCH", true) => append(request).await?,
        ("DELETE", true) => super::append::terminate(request).await?,
        (_, below) => return Err(super::not_allowed(below, request.link.is_some())),
    };
    let headers = response.headers_mut();
    headers.insert(UPLOAD_LIMIT, limit);
    if let Some(version) = version {
        headers.insert(INTEROP_VERSION, version);
    }
    Ok(response)
}

/// Returns the version for the response: the client's, if it names one.
fn version(request: &TusRequest) -> Result<Option<HeaderValue>, Problem> {
    match request.text(&INTEROP_VERSION)? {
        None => Ok(None),
        Some(text) if VERSIONS.contains(&text) => Ok(Some(value(text))),
        Some(_) => Err(Problem::field(
            Code::MalformedRequest,
            "Upload-Draft-Interop-Version",
            "only versions 6 and 8 are supported",
        )),
    }
}

/// Parses `Upload-Complete`, a boolean of RFC 9651.
fn complete(request: &TusRequest) -> Result<bool, Problem> {
    match request.text(&UPLOAD_COMPLETE)? {
        Some("?1") => Ok(true),
        Some("?0") => Ok(false),
        _ => Err(Problem::field(
            Code::MalformedRequest,
            "Upload-Complete",
            "is required and must be ?0 or ?1",
        )),
    }
}

async fn create(mut request: TusRequest) -> Result<Response, Problem> {
    let last = complete(&request)?;
    let (told, length) = (request.size(&UPLOAD_LENGTH)?, request.content_length());
    let total = match (told, length.filter(|_| last)) {
        (Some(told), Some(length)) if told != length => return Ok(inconsistent_length()),
        (told, length) => told.or(length),
    };
    if let (Some(total), Some(length)) = (total, length)
        && length > total
    {
        return Ok(inconsistent_length());
    }
    let new = new_upload(&request)?;
    let upload = uploads::create(&request.app, UploadShape::Append { total }, new, None).await;
    let upload = upload.map_err(error::problem)?;
    if !request.has_body() && !last {
        return Ok(created(&request, &upload));
    }
    let append = Append {
        content_length: length,
        last,
        ..Append::default()
    };
    let upload = match request.append(upload.id, append).await {
        Ok(upload) => upload,
        Err(UploadError::BrokenOff(_) | UploadError::Stalled) => {
            call_back(&request, upload).await?
        }
        Err(error @ UploadError::NotAllowed(_)) => {
            // The client does not learn the location, so it could not resume this upload.
            uploads::abort(&request.app, &request.caller.sees(), upload.id)
                .await
                .map_err(error::problem)?;
            return Err(error::problem(error));
        }
        Err(error) => return Err(error::problem(error)),
    };
    Ok(created(&request, &upload))
}

async fn call_back(request: &TusRequest, upload: Model) -> Result<Model, Problem> {
    uploads::get(request.app.db.read(), &request.caller.sees(), upload.id)
        .await
        .map_err(error::problem)
}

fn new_upload(request: &TusRequest) -> Result<NewUpload, Problem> {
    let disposition = request.headers.get(header::CONTENT_DISPOSITION);
    let named = disposition
        .map(|value| Disposition::parse(value.as_bytes(), false))
        .and_then(|disposition| disposition.filename);
    let media_type =
        Some(request.media_type()).filter(|kind| kind != PARTIAL_UPLOAD && !kind.is_empty());
    create::new_upload(request, named, media_type)
}

fn created(request: &TusRequest, upload: &Model) -> Response {
    let mut response = state(StatusCode::CREATED, upload);
    response
        .headers_mut()
        .insert(header::LOCATION, request.location(upload.id));
    response
}

/// A response with the state of an upload.
fn state(status: StatusCode, upload: &Model) -> Response {
    let mut response = Response::builder().status(status).finish();
    let headers = response.headers_mut();
    let complete = if upload.status == UploadStatus::Complete {
        "?1"
    } else {
        "?0"
    };
    headers.insert(UPLOAD_COMPLETE, HeaderValue::from_static(complete));
    headers.insert(UPLOAD_OFFSET, HeaderValue::from(upload.bytes_received));
    if let Some(total) = upload.total_size_bytes {
        headers.insert(UPLOAD_LENGTH, HeaderValue::from(total));
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    with_state(response, upload)
}

async fn head(request: TusRequest) -> Result<Response, Problem> {
    Ok(state(StatusCode::NO_CONTENT, &request.upload().await?))
}

async fn append(mut request: TusRequest) -> Result<Response, Problem> {
    if request.media_type() != PARTIAL_UPLOAD {
        return Err(Problem::new(
            Code::UnsupportedMediaType,
            "the Content-Type must be application/partial-upload",
        ));
    }
    let last = complete(&request)?;
    let offset = request
        .size(&UPLOAD_OFFSET)?
        .ok_or_else(|| Problem::field(Code::MalformedRequest, "Upload-Offset", "is missing"))?;
    let (told, length) = (request.size(&UPLOAD_LENGTH)?, request.content_length());
    let upload = request.upload().await?;
    let known = upload.total_size_bytes.map(i64::unsigned_abs);
    if offset != upload.bytes_received.unsigned_abs() {
        return Ok(wrong_offset(upload.bytes_received.unsigned_abs(), offset));
    }
    if upload.status == UploadStatus::Complete {
        return Ok(problem(
            "#completed-upload",
            "the upload is complete",
            &upload,
        ));
    }
    let end = length.map(|length| offset.saturating_add(length));
    let total = known.or(told);
    let wrong_end = match (total, end) {
        (Some(total), Some(end)) => end > total || (last && end != total),
        _ => false,
    };
    if wrong_end || known.zip(told).is_some_and(|(known, told)| known != told) {
        return Ok(inconsistent_length());
    }
    let append_request = Append {
        offset,
        length: told.filter(|_| known.is_none()),
        content_length: length,
        checksum: None,
        last,
    };
    match request.append(upload.id, append_request).await {
        Ok(upload) => Ok(state(StatusCode::NO_CONTENT, &upload)),
        Err(UploadError::WrongOffset { expected, provided }) => {
            Ok(wrong_offset(expected, provided))
        }
        Err(UploadError::LengthFixed { .. }) => Ok(inconsistent_length()),
        Err(error) => Err(error::problem(error)),
    }
}

fn wrong_offset(expected: u64, provided: u64) -> Response {
    let mut response = document(
        StatusCode::CONFLICT,
        json!({
            "type": format!("{TYPES}#mismatching-upload-offset"),
            "title": "The offset does not match the upload",
            "status": 409,
            "detail": format!("the upload is at offset {expected}, not at {provided}"),
            "code": Code::Conflict.as_str(),
            "expected-offset": expected,
            "provided-offset": provided,
        }),
    );
    let headers = response.headers_mut();
    headers.insert(UPLOAD_OFFSET, HeaderValue::from(expected));
    headers.insert(UPLOAD_COMPLETE, HeaderValue::from_static("?0"));
    response
}

fn inconsistent_length() -> Response {
    document(
        StatusCode::BAD_REQUEST,
        json!({
            "type": format!("{TYPES}#inconsistent-upload-length"),
            "title": "The upload lengths are inconsistent",
            "status": 400,
            "detail": "the length differs from the one declared before, or from the end of this request",
            "code": Code::MalformedRequest.as_str(),
        }),
    )
}

fn problem(kind: &str, detail: &str, upload: &Model) -> Response {
    let mut response = document(
        StatusCode::BAD_REQUEST,
        json!({
            "type": format!("{TYPES}{kind}"),
            "title": "The upload accepts no more bytes",
            "status": 400,
            "detail": detail,
            "code": Code::UploadClosed.as_str(),
        }),
    );
    let headers = response.headers_mut();
    headers.insert(UPLOAD_OFFSET, HeaderValue::from(upload.bytes_received));
    headers.insert(headers::UPLOAD_COMPLETE, HeaderValue::from_static("?1"));
    response
}

fn document(status: StatusCode, body: Value) -> Response {
    Response::builder()
        .status(status)
        .content_type("application/problem+json")
        .body(body.to_string())
}
