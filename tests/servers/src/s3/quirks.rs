//! Differences between S3 and what other providers offer.

use std::collections::HashSet;
use std::sync::Mutex;

use http::header::HOST;
use http::{Request, StatusCode};

use super::operation::S3Operation;
use crate::lock::lock;

/// A way in which a provider differs from S3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum S3Quirk {
    /// `UploadPartCopy` is 501.
    NoPartCopy,
    /// A part without a checksum is 400, as in a bucket with Object Lock.
    PartChecksumRequired,
    /// `ListMultipartUploads` is 403.
    ListingForbidden,
    /// `x-amz-checksum-sha256` is 400.
    NoChecksumHeader,
    /// Requests that name the bucket in the path are 403, as if the access key were unknown.
    VirtualHostsOnly,
    /// `If-None-Match` is 501.
    NoConditionalWrites,
    /// `If-None-Match` is accepted and has no effect.
    IgnoredConditions,
    /// Multipart uploads are 501.
    NoMultipart,
}

/// The quirks of a server.
#[derive(Debug, Default)]
pub(crate) struct Quirks(Mutex<HashSet<S3Quirk>>);

/// An error response: status, code and message.
pub(crate) type Refusal = (StatusCode, &'static str, &'static str);

const FORBIDDEN: Refusal = (StatusCode::FORBIDDEN, "AccessDenied", "Access Denied");

const UNKNOWN_KEY: Refusal = (
    StatusCode::FORBIDDEN,
    "InvalidAccessKeyId",
    "The access key id you provided does not exist in our records",
);

const UNSUPPORTED_HEADER: Refusal = (
    StatusCode::BAD_REQUEST,
    "InvalidArgument",
    "Unsupported header 'x-amz-checksum-sha256' received for this API call",
);

const CHECKSUM_REQUIRED: Refusal = (
    StatusCode::BAD_REQUEST,
    "InvalidRequest",
    "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Part requests with Object Lock parameters",
);

const NOT_IMPLEMENTED: Refusal = (
    StatusCode::NOT_IMPLEMENTED,
    "NotImplemented",
    "A header you provided implies functionality that is not implemented",
);

impl Quirks {
    pub(crate) fn add(&self, quirk: S3Quirk) {
        lock(&self.0).insert(quirk);
    }

    pub(crate) fn has(&self, quirk: S3Quirk) -> bool {
        lock(&self.0).contains(&quirk)
    }

    /// The response to a request that this provider refuses.
    pub(crate) fn refusal<B>(&self, request: &Request<B>) -> Option<Refusal> {
        let quirks = lock(&self.0);
        let mut refusing = quirks.iter().filter_map(|quirk| quirk.refusal(request));
        refusing.next()
    }
}

impl S3Quirk {
    fn refusal<B>(self, request: &Request<B>) -> Option<Refusal> {
        let operation = S3Operation::parse(request);
        let is = |one| operation == Some(one);
        let carries = |name| request.headers().contains_key(name);
        let (applies, refusal) = match self {
            Self::NoPartCopy => (is(S3Operation::UploadPartCopy), NOT_IMPLEMENTED),
            Self::NoMultipart => (is(S3Operation::CreateMultipartUpload), NOT_IMPLEMENTED),
            Self::NoConditionalWrites => (carries("if-none-match"), NOT_IMPLEMENTED),
            Self::ListingForbidden => (is(S3Operation::ListMultipartUploads), FORBIDDEN),
            Self::NoChecksumHeader => (carries("x-amz-checksum-sha256"), UNSUPPORTED_HEADER),
            Self::VirtualHostsOnly => (bucket_in_host(request).is_none(), UNKNOWN_KEY),
            Self::PartChecksumRequired => {
                let has_checksum = carries("content-md5") || carries("x-amz-checksum-sha256");
                let is_part = is(S3Operation::UploadPart);
                (is_part && !has_checksum, CHECKSUM_REQUIRED)
            }
            // Accepted, see the store.
            Self::IgnoredConditions => return None,
        };
        applies.then_some(refusal)
    }
}

/// The bucket that the host of a request names: `bucket.localhost`.
pub(crate) fn bucket_in_host<B>(request: &Request<B>) -> Option<&str> {
    let host = request.headers().get(HOST)?.to_str().ok()?;
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    name.strip_suffix(".localhost")
}
