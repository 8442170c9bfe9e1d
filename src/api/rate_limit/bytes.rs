//! Counting what a request sends, on its way.

use super::RequestLimits;
use futures::TryStreamExt;
use poem::{Body, Request};

/// The request, with its body counted; the count goes on for as long as somebody reads it.
pub(in crate::api) fn counted(mut request: Request, limits: &RequestLimits) -> Request {
    let limits = limits.clone();
    let bytes = request.take_body().into_bytes_stream();
    let counted = bytes.inspect_ok(move |bytes| limits.sent(bytes.len() as u64));
    request.set_body(Body::from_bytes_stream(counted));
    request
}
