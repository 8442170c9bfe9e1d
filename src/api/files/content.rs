//! `GET` and `HEAD /v1/files/{id}/content`.

use crate::api::{
    HeadRequest,
    conditional::{http_date, is_unmodified, may_send_range},
    content_disposition::attachment,
    problem::{Code, Problem},
    range::{self, RequestedRange},
    state::ApiState,
};
use entity::file::{FileStatus, Model};
use futures::TryStreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use landfall_core::storage::{StorageKey, UrlOptions};
use poem::{Body, IntoResponse, Request, Response};
use poem_openapi::{
    ApiResponse,
    registry::{MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry},
};
use std::io;

/// A file's bytes, or a redirect to them.
#[derive(Debug)]
pub(crate) struct Download(Response);

impl IntoResponse for Download {
    fn into_response(self) -> Response {
        self.0
    }
}

fn binary_media_type(content_type: &'static str) -> MetaMediaType {
    let schema = MetaSchema::new_with_format("string", "binary");
    MetaMediaType {
        content_type,
        schema: MetaSchemaRef::Inline(Box::new(schema)),
    }
}

impl ApiResponse for Download {
    fn meta() -> MetaResponses {
        let response = |status, description, bytes: bool| MetaResponse {
            description,
            status: Some(status),
            status_range: None,
            content: match bytes {
                // The type of the file; generators of clients know what to do with the first.
                true => ["application/octet-stream", "*/*"]
                    .map(binary_media_type)
                    .into(),
                false => Vec::new(),
            },
            headers: Vec::new(),
        };
        MetaResponses {
            responses: vec![
                response(200, "The whole content.", true),
                response(206, "The requested range.", true),
                response(304, "Not modified.", false),
                response(307, "The content is at `Location`, a signed S3 URL.", false),
            ],
        }
    }

    fn register(_: &mut Registry) {}
}

/// Returns the response with the bytes of a stored file, or a redirect to them.
pub(crate) async fn download(
    state: &ApiState,
    row: Model,
    request: &Request,
) -> Result<Download, Problem> {
    match row.status {
        FileStatus::Stored => {}
        FileStatus::Deleted => return Err(Problem::not_found("file")),
        FileStatus::Failed => {
            return Err(Problem::new(
                Code::NotStored,
                "The file failed; `error` says why.",
            ));
        }
        _ => {
            return Err(Problem::new(
                Code::NotStored,
                "The file is not stored yet. Wait for it with `GET /v1/files/{id}?wait=`.",
            )
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("1")));
        }
    }
    let key = row.storage_key.as_deref();
    let key = key.ok_or_else(|| Problem::failed("a stored file without a key"))?;
    let key: StorageKey = key.parse()?;
    let name = attachment(&row.original_filename);
    let options = UrlOptions {
        content_disposition: Some(&name),
        content_type: Some(&row.content_type),
        head: request.data::<HeadRequest>().is_some(),
    };
    match state.app.storage.url(&key, options).await? {
        Some(url) => redirect(url.as_str()),
        None => send(state, &row, &key, &name, request.headers()).await,
    }
}

fn redirect(url: &str) -> Result<Download, Problem> {
    let location = HeaderValue::from_str(url).map_err(Problem::failed)?;
    let mut response = Response::from(StatusCode::TEMPORARY_REDIRECT);
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, location);
    // The URL is a secret while it is valid.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(Download(response))
}

async fn send(
    state: &ApiState,
    row: &Model,
    key: &StorageKey,
    name: &str,
    headers: &HeaderMap,
) -> Result<Download, Problem> {
    let size = u64::try_from(row.size_bytes).map_err(Problem::failed)?;
    let etag = format!("\"{}\"", row.sha256.as_deref().unwrap_or_default());
    let modified = row.stored_at.unwrap_or(row.updated_at);
    let mut response = Response::default();
    for (name, value) in [
        (header::ETAG, etag.as_str()),
        (header::LAST_MODIFIED, &http_date(modified)),
        (header::ACCEPT_RANGES, "bytes"),
        (header::CACHE_CONTROL, "private, no-cache"),
    ] {
        set(&mut response, name, value)?;
    }
    if is_unmodified(headers, &etag, modified) {
        response.set_status(StatusCode::NOT_MODIFIED);
        return Ok(Download(response));
    }
    let wanted = headers
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok());
    let wanted = wanted.filter(|_| may_send_range(headers, &etag, modified));
    let part = match range::parse(wanted, size) {
        RequestedRange::Whole => 0..size,
        RequestedRange::Part(part) => {
            response.set_status(StatusCode::PARTIAL_CONTENT);
            let range = format!("bytes {}-{}/{size}", part.start, part.end - 1);
            set(&mut response, header::CONTENT_RANGE, &range)?;
            part
        }
        RequestedRange::Unsatisfiable => return Err(unsatisfiable(size)),
    };
    for (name, value) in [
        (header::CONTENT_TYPE, row.content_type.as_str()),
        (header::CONTENT_LENGTH, &(part.end - part.start).to_string()),
        (header::CONTENT_DISPOSITION, name),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; sandbox",
        ),
    ] {
        set(&mut response, name, value)?;
    }
    let bytes = state.app.storage.read(key, Some(part)).await?;
    response.set_body(Body::from_bytes_stream(bytes.map_err(io::Error::other)));
    Ok(Download(response))
}

fn set(response: &mut Response, name: HeaderName, value: &str) -> Result<(), Problem> {
    let value = HeaderValue::from_str(value).map_err(Problem::failed)?;
    response.headers_mut().insert(name, value);
    Ok(())
}

fn unsatisfiable(size: u64) -> Problem {
    let problem = Problem::new(
        Code::RangeNotSatisfiable,
        format!("The file has {size} bytes."),
    );
    match HeaderValue::from_str(&format!("bytes */{size}")) {
        Ok(value) => problem.with_header(header::CONTENT_RANGE, value),
        Err(_) => problem,
    }
}
