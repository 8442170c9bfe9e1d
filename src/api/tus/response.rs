//! Responses about an upload.

use super::{
    headers::{
        LANDFALL_FILE, UPLOAD_CONCAT, UPLOAD_DEFER_LENGTH, UPLOAD_EXPIRES, UPLOAD_LENGTH,
        UPLOAD_METADATA, UPLOAD_OFFSET,
    },
    request::{TusRequest, value},
};
use crate::api::conditional::http_date;
use entity::upload::{Model, UploadKind, UploadStatus};
use http::{HeaderValue, StatusCode, header};
use poem::Response;

/// 201: the location of the upload and its expiry.
pub(super) fn created(request: &TusRequest, upload: &Model) -> Response {
    let mut response = Response::builder().status(StatusCode::CREATED).finish();
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, request.location(upload.id));
    with_state(response, upload)
}

/// Adds the expiry of an unfinished upload, or the file of a complete one.
pub(super) fn with_state(mut response: Response, upload: &Model) -> Response {
    let headers = response.headers_mut();
    if upload.status != UploadStatus::Complete {
        headers.insert(UPLOAD_EXPIRES, value(http_date(upload.expires_at)));
    }
    if upload.kind != UploadKind::Partial
        && (upload.status == UploadStatus::Complete || upload.kind == UploadKind::Final)
    {
        headers.insert(
            LANDFALL_FILE,
            value(format!("/v1/files/{}", upload.file_id)),
        );
    }
    response
}

/// Adds the offset of the upload.
pub(super) fn with_progress(mut response: Response, upload: &Model) -> Response {
    response
        .headers_mut()
        .insert(UPLOAD_OFFSET, HeaderValue::from(upload.bytes_received));
    response
}

/// 204: the new offset of the upload.
pub(super) fn appended(upload: &Model) -> Response {
    let response = Response::builder().status(StatusCode::NO_CONTENT).finish();
    with_state(with_progress(response, upload), upload)
}

/// 200, for HEAD: the complete state of the upload.
pub(super) fn described(upload: &Model) -> Response {
    let mut response = Response::builder().status(StatusCode::OK).finish();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    match upload.total_size_bytes {
        Some(total) => headers.insert(UPLOAD_LENGTH, HeaderValue::from(total)),
        None => headers.insert(UPLOAD_DEFER_LENGTH, HeaderValue::from_static("1")),
    };
    if let Some(text) = &upload.tus_metadata {
        headers.insert(UPLOAD_METADATA, value(text));
    }
    if let Some(text) = &upload.tus_concat {
        headers.insert(UPLOAD_CONCAT, value(text));
    }
    // A final upload has no offset until all its partial uploads are complete (tus, "Concatenation").
    let joining = upload.kind == UploadKind::Final && upload.status != UploadStatus::Complete;
    let response = with_state(response, upload);
    if joining {
        response
    } else {
        with_progress(response, upload)
    }
}
