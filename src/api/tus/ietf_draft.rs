//! Resumable uploads for HTTP (draft-ietf-httpbis-resumable-upload), interop versions 6 and 8, on the same URLs.
//!
//! A client speaks it by `Upload-Complete` or `Upload-Draft-Interop-Version`. The interim response 104 is not sent:
//! a client that is cut off during creation begins again.

use super::{
    answer::with_state,
    call::{Call, location, value},
    create,
    headers::{
        self, INTEROP_VERSION, TUS_RESUMABLE, UPLOAD_COMPLETE, UPLOAD_LENGTH, UPLOAD_LIMIT,
        UPLOAD_OFFSET,
    },
    refuse,
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

/// The type of a body that is part of a representation.
const PARTIAL_UPLOAD: &str = "application/partial-upload";
/// The interop versions answered.
const VERSIONS: [&str; 2] = ["6", "8"];
/// Where the draft's problem types are registered.
const TYPES: &str = "https://iana.org/assignments/http-problem-types";

/// True when a request speaks it.
pub(super) fn is_spoken(headers: &HeaderMap) -> bool {
    !headers.contains_key(TUS_RESUMABLE)
        && (headers.contains_key(UPLOAD_COMPLETE) || headers.contains_key(INTEROP_VERSION))
}

/// `Upload-Limit`: a dictionary (RFC 9651) of sizes in bytes and an age in seconds.
pub(super) fn limit(uploads: &config::UploadsConfig) -> String {
    let (size, age) = (uploads.max_file_size.0, uploads.session_ttl.as_secs());
    format!("max-size={size}, min-size=0, max-append-size={size}, min-append-size=0, max-age={age}")
}

pub(super) async fn serve(method: &Method, below: bool, call: Call) -> Result<Response, Problem> {
    let version = version(&call)?;
    let limit = value(limit(&call.app.config.uploads));
    let mut response = match (method.as_str(), below) {
        ("POST", false) => create(call).await?,
        ("HEAD", true) => look(call).await?,
        ("PATCH", true) => append(call).await?,
        ("DELETE", true) => super::append::terminate(call).await?,
        (_, below) => return Err(super::not_allowed(below)),
    };
    let headers = response.headers_mut();
    headers.insert(UPLOAD_LIMIT, limit);
    if let Some(version) = version {
        headers.insert(INTEROP_VERSION, version);
    }
    Ok(response)
}

/// The version to answer in: the client's, when it names one.
fn version(call: &Call) -> Result<Option<HeaderValue>, Problem> {
    match call.text(&INTEROP_VERSION)? {
        None => Ok(None),
        Some(text) if VERSIONS.contains(&text) => Ok(Some(value(text))),
        Some(_) => Err(Problem::field(
            Code::MalformedRequest,
            "Upload-Draft-Interop-Version",
            "only versions 6 and 8 are supported",
        )),
    }
}

/// A boolean of RFC 9651.
fn complete(call: &Call) -> Result<bool, Problem> {
    match call.text(&UPLOAD_COMPLETE)? {
        Some("?1") => Ok(true),
        Some("?0") => Ok(false),
        _ => Err(Problem::field(
            Code::MalformedRequest,
            "Upload-Complete",
            "is required and must be ?0 or ?1",
        )),
    }
}

async fn create(mut call: Call) -> Result<Response, Problem> {
    let last = complete(&call)?;
    let (told, length) = (call.size(&UPLOAD_LENGTH)?, call.content_length());
    let total = match (told, length.filter(|_| last)) {
        (Some(told), Some(length)) if told != length => return Ok(inconsistent_length()),
        (told, length) => told.or(length),
    };
    if let (Some(total), Some(length)) = (total, length)
        && length > total
    {
        return Ok(inconsistent_length());
    }
    let new = new_upload(&call)?;
    let upload = uploads::create(&call.app, UploadShape::Append { total }, new, None).await;
    let upload = upload.map_err(refuse::problem)?;
    if !call.has_body() && !last {
        return Ok(created(&upload));
    }
    let append = Append {
        content_length: length,
        last,
        ..Append::default()
    };
    let upload = match call.append(upload.id, append).await {
        Ok(upload) => upload,
        Err(UploadError::BrokenOff(_) | UploadError::Stalled) => call_back(&call, upload).await?,
        Err(error @ UploadError::NotAllowed(_)) => {
            // Its client does not learn where it is, so nobody could go on with it.
            uploads::abort(&call.app, &call.caller.sees(), upload.id)
                .await
                .map_err(refuse::problem)?;
            return Err(refuse::problem(error));
        }
        Err(error) => return Err(refuse::problem(error)),
    };
    Ok(created(&upload))
}

async fn call_back(call: &Call, upload: Model) -> Result<Model, Problem> {
    uploads::get(call.app.db.read(), &call.caller.sees(), upload.id)
        .await
        .map_err(refuse::problem)
}

fn new_upload(call: &Call) -> Result<NewUpload, Problem> {
    let disposition = call.headers.get(header::CONTENT_DISPOSITION);
    let named = disposition
        .map(|value| Disposition::parse(value.as_bytes(), false))
        .and_then(|disposition| disposition.filename);
    let media_type =
        Some(call.media_type()).filter(|kind| kind != PARTIAL_UPLOAD && !kind.is_empty());
    create::new_upload(call, named, media_type)
}

fn created(upload: &Model) -> Response {
    let mut response = state(StatusCode::CREATED, upload);
    response
        .headers_mut()
        .insert(header::LOCATION, location(upload.id));
    response
}

/// How far an upload is.
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

async fn look(call: Call) -> Result<Response, Problem> {
    Ok(state(StatusCode::NO_CONTENT, &call.upload().await?))
}

async fn append(mut call: Call) -> Result<Response, Problem> {
    if call.media_type() != PARTIAL_UPLOAD {
        return Err(Problem::new(
            Code::UnsupportedMediaType,
            "bytes are appended with the Content-Type application/partial-upload",
        ));
    }
    let last = complete(&call)?;
    let offset = call
        .size(&UPLOAD_OFFSET)?
        .ok_or_else(|| Problem::field(Code::MalformedRequest, "Upload-Offset", "is missing"))?;
    let (told, length) = (call.size(&UPLOAD_LENGTH)?, call.content_length());
    let upload = call.upload().await?;
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
    let request = Append {
        offset,
        length: told.filter(|_| known.is_none()),
        content_length: length,
        checksum: None,
        last,
    };
    match call.append(upload.id, request).await {
        Ok(upload) => Ok(state(StatusCode::NO_CONTENT, &upload)),
        Err(UploadError::WrongOffset { expected, provided }) => {
            Ok(wrong_offset(expected, provided))
        }
        Err(UploadError::LengthFixed { .. }) => Ok(inconsistent_length()),
        Err(error) => Err(refuse::problem(error)),
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
