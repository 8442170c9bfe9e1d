//! The table of problem codes: name, title and status of each.

use http::StatusCode;

macro_rules! status {
    ($name:ident) => {
        StatusCode::$name
    };
    ($number:literal) => {
        StatusCode::from_u16($number).expect("a status has three digits")
    };
}

macro_rules! codes {
    ($($variant:ident $status:tt $code:literal $title:literal;)+) => {
        /// A stable problem code.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $title] $variant,)+
        }

        impl Code {
            /// All codes.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The value of `code`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }

            /// The same for every problem of this code.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)+ }
            }

            /// The HTTP status.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self { $(Self::$variant => status!($status),)+ }
            }
        }
    };
}

codes! {
    MalformedRequest BAD_REQUEST "malformed_request" "The request is malformed";
    UnknownField BAD_REQUEST "unknown_field" "The request has an unknown field";
    MissingFile BAD_REQUEST "missing_file" "The upload has no file";
    TooManyFiles BAD_REQUEST "too_many_files" "The upload has more than one file";
    EmptyFile BAD_REQUEST "empty_file" "The file is empty";
    InvalidName BAD_REQUEST "invalid_name" "The file name is invalid";
    InvalidMetadata BAD_REQUEST "invalid_metadata" "The metadata is invalid";
    InvalidCursor BAD_REQUEST "invalid_cursor" "The cursor does not belong to this list";
    Unauthorized UNAUTHORIZED "unauthorized" "A valid token is required";
    Forbidden FORBIDDEN "forbidden" "The token does not allow this";
    CrossSite FORBIDDEN "cross_site" "Pages of other sites may not do this";
    NotFound NOT_FOUND "not_found" "Not found";
    MethodNotAllowed METHOD_NOT_ALLOWED "method_not_allowed" "The method is not allowed here";
    RequestTimeout REQUEST_TIMEOUT "request_timeout" "The request timed out";
    Conflict CONFLICT "conflict" "The current state does not allow this";
    NotStored CONFLICT "not_stored" "The file is not stored";
    NotRetryable CONFLICT "not_retryable" "The file cannot be retried";
    PartsMissing CONFLICT "parts_missing" "Parts of the upload are missing";
    PartConflict CONFLICT "part_conflict" "The part was already received with different bytes";
    UploadClosed CONFLICT "upload_closed" "The upload is closed";
    LinkUsed CONFLICT "link_used" "The upload link accepts no further file";
    InFlight CONFLICT "in_flight" "The first request with this key is still in progress";
    LinkExpired GONE "link_expired" "The upload link has expired";
    LinkRevoked GONE "link_revoked" "The upload link was revoked";
    UploadGone GONE "upload_gone" "The upload no longer exists";
    HostNotAllowed MISDIRECTED_REQUEST "host_not_allowed" "The host name is not allowed";
    UnsupportedVersion PRECONDITION_FAILED "unsupported_version" "The protocol version is not supported";
    UploadLocked LOCKED "upload_locked" "Another request is writing to the upload";
    ChecksumMismatch 460 "checksum_mismatch" "The bytes do not match the declared checksum";
    HeadersTooLarge REQUEST_HEADER_FIELDS_TOO_LARGE "headers_too_large" "The headers are too large";
    TooLarge PAYLOAD_TOO_LARGE "too_large" "The request is too large";
    QuotaExceeded PAYLOAD_TOO_LARGE "quota_exceeded" "The owner's quota is exceeded";
    UnsupportedMediaType UNSUPPORTED_MEDIA_TYPE "unsupported_media_type" "The content type is not supported";
    TypeNotAllowed UNSUPPORTED_MEDIA_TYPE "type_not_allowed" "Files of this type are not accepted";
    RangeNotSatisfiable RANGE_NOT_SATISFIABLE "range_not_satisfiable" "The range lies outside the file";
    DigestMismatch UNPROCESSABLE_ENTITY "digest_mismatch" "The bytes do not match the declared digest";
    SizeMismatch UNPROCESSABLE_ENTITY "size_mismatch" "The bytes do not match the declared size";
    IdempotencyKeyReused UNPROCESSABLE_ENTITY "idempotency_key_reused" "The key was used for a different request";
    RateLimited TOO_MANY_REQUESTS "rate_limited" "Too many requests";
    Internal INTERNAL_SERVER_ERROR "internal" "The server failed";
    NotImplemented NOT_IMPLEMENTED "not_implemented" "The request needs an unsupported feature";
    Unavailable SERVICE_UNAVAILABLE "unavailable" "The server is temporarily unavailable";
    DatabaseFull INSUFFICIENT_STORAGE "database_full" "The database's disk is full";
    StagingFull INSUFFICIENT_STORAGE "staging_full" "Staging is full";
}
