//! Determines the S3 operation of a request from its request line and one header.

use http::{HeaderMap, Method, Request, Uri};

use super::quirks::bucket_in_host;

/// An operation of the S3 API that faults can be planned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of the S3 API")]
pub enum S3Operation {
    PutObject,
    GetObject,
    HeadObject,
    DeleteObject,
    DeleteObjects,
    CopyObject,
    CreateMultipartUpload,
    UploadPart,
    UploadPartCopy,
    CompleteMultipartUpload,
    AbortMultipartUpload,
    ListParts,
    ListMultipartUploads,
    ListObjectsV2,
    HeadBucket,
}

impl S3Operation {
    /// `None` for operations without fault injection.
    pub(crate) fn of<B>(request: &Request<B>) -> Option<Self> {
        let operation = Self::parse(request)?;
        let path = request.uri().path();
        // The installation's marker is read at unpredictable times: counting these requests, or giving them a fault
        // meant for an object, would make tests flaky. So would counting the parts of a startup check.
        let is_probe = path.contains("/landfall-probe-");
        let is_of_multipart = matches!(
            operation,
            Self::CreateMultipartUpload
                | Self::UploadPart
                | Self::UploadPartCopy
                | Self::AbortMultipartUpload
        );
        let is_marker = path.ends_with("landfall-installation");
        let is_ignored = is_marker || is_probe && is_of_multipart;
        (!is_ignored).then_some(operation)
    }

    /// `None` for operations that Landfall does not use.
    pub(crate) fn parse<B>(request: &Request<B>) -> Option<Self> {
        let path = request.uri().path().trim_start_matches('/');
        let key = match bucket_in_host(request) {
            Some(_) => path,
            // Path-style: the bucket, and after the first slash the key.
            None => path.split_once('/').map_or("", |(_, key)| key),
        };
        match key {
            "" => Self::of_bucket(request.method(), request.uri()),
            _ => Self::of_object(request.method(), request.uri(), request.headers()),
        }
    }

    fn of_bucket(method: &Method, uri: &Uri) -> Option<Self> {
        match *method {
            Method::HEAD => Some(Self::HeadBucket),
            Method::GET if asks(uri, "uploads") => Some(Self::ListMultipartUploads),
            Method::GET if asks(uri, "list-type") => Some(Self::ListObjectsV2),
            Method::POST if asks(uri, "delete") => Some(Self::DeleteObjects),
            _ => None,
        }
    }

    fn of_object(method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<Self> {
        let of_upload = asks(uri, "uploadId");
        let copies = headers.contains_key("x-amz-copy-source");
        match *method {
            Method::PUT if asks(uri, "tagging") || asks(uri, "acl") => None,
            Method::PUT => Some(match (of_upload, copies) {
                (true, true) => Self::UploadPartCopy,
                (true, false) => Self::UploadPart,
                (false, true) => Self::CopyObject,
                (false, false) => Self::PutObject,
            }),
            Method::GET if of_upload => Some(Self::ListParts),
            Method::GET => Some(Self::GetObject),
            Method::HEAD => Some(Self::HeadObject),
            Method::DELETE if of_upload => Some(Self::AbortMultipartUpload),
            Method::DELETE => Some(Self::DeleteObject),
            Method::POST if of_upload => Some(Self::CompleteMultipartUpload),
            Method::POST if asks(uri, "uploads") => Some(Self::CreateMultipartUpload),
            _ => None,
        }
    }
}

fn asks(uri: &Uri, parameter: &str) -> bool {
    let query = uri.query().unwrap_or_default();
    query
        .split('&')
        .any(|pair| pair.split('=').next() == Some(parameter))
}
