//! Browsers on other origins (the Fetch standard, «CORS protocol»): uploads carry their token in a header, never a
//! cookie, so any origin may send them.

use super::headers;
use http::{HeaderMap, HeaderName, HeaderValue, header};

const METHODS: HeaderValue = HeaderValue::from_static("POST, HEAD, PATCH, DELETE, GET, OPTIONS");
const ANY: HeaderValue = HeaderValue::from_static("*");
/// In seconds.
const KEEP: HeaderValue = HeaderValue::from_static("86400");

/// What clients send.
const SENT: [HeaderName; 16] = [
    header::AUTHORIZATION,
    header::CONTENT_TYPE,
    header::CONTENT_DISPOSITION,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("traceparent"),
    headers::METHOD_OVERRIDE,
    headers::TUS_RESUMABLE,
    headers::UPLOAD_LENGTH,
    headers::UPLOAD_DEFER_LENGTH,
    headers::UPLOAD_OFFSET,
    headers::UPLOAD_METADATA,
    headers::UPLOAD_CHECKSUM,
    headers::UPLOAD_CONCAT,
    headers::UPLOAD_COMPLETE,
    headers::INTEROP_VERSION,
    HeaderName::from_static("x-request-id"),
];

/// What scripts may read of an answer.
const READ: [HeaderName; 18] = [
    header::LOCATION,
    header::RETRY_AFTER,
    headers::TUS_RESUMABLE,
    headers::TUS_VERSION,
    headers::TUS_EXTENSION,
    headers::TUS_MAX_SIZE,
    headers::TUS_CHECKSUM_ALGORITHM,
    headers::UPLOAD_OFFSET,
    headers::UPLOAD_LENGTH,
    headers::UPLOAD_DEFER_LENGTH,
    headers::UPLOAD_METADATA,
    headers::UPLOAD_EXPIRES,
    headers::UPLOAD_CONCAT,
    headers::UPLOAD_COMPLETE,
    headers::UPLOAD_LIMIT,
    headers::INTEROP_VERSION,
    headers::LANDFALL_FILE,
    HeaderName::from_static("x-request-id"),
];

/// For every answer.
pub(super) fn expose(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, list(&READ));
}

/// For an answer to OPTIONS, when a browser asks before it sends.
pub(super) fn preflight(headers: &mut HeaderMap, asked: &HeaderMap) {
    if !asked.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD) {
        return;
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, list(&SENT));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, KEEP);
}

fn list(names: &[HeaderName]) -> HeaderValue {
    let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
    super::call::value(names.join(", "))
}
