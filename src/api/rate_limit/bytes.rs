//! Counts the bytes of a request body as they are read.

use super::RequestLimits;
use futures::TryStreamExt;
use poem::{Body, Request};

/// Wraps the request's body in a counter, for as long as the body is read.
pub(in crate::api) fn counted(mut request: Request, limits: &RequestLimits) -> Request {
    let limits = limits.clone();
    let bytes = request.take_body().into_bytes_stream();
    let counted = bytes.inspect_ok(move |bytes| limits.sent(bytes.len() as u64));
    request.set_body(Body::from_bytes_stream(counted));
    request
}
