//! Every error the API answers: one table of codes, and what each error of the core becomes (RFC 9457).
//!
//! Refuses to tell a client why the server failed: a 5xx says that it did, and the log says why, once.

use super::wire;
use http::{HeaderValue, StatusCode, header::HeaderName};
use landfall_core::{
    batches::{self, JoinError},
    content::NotAllowed,
    db,
    files::{AcceptError, DeleteError, InvalidName},
    idempotency::KeepError,
    outbox::{AgainError, WriteError},
    page::InvalidCursor,
    staging::StagingError,
    storage::{NotAKey, StorageError},
    uploads::UploadError,
    usage::QuotaError,
    webhooks::WebhookError,
};
use poem::{Body, Response, error::ResponseError};
use poem_openapi::{
    ApiResponse,
    registry::{MetaMediaType, MetaResponse, MetaResponses, Registry},
    types::Type,
};
use sea_orm::DbErr;
use std::{error::Error, fmt};

/// Where `docs/errors.md` explains each code.
const EXPLAINED: &str = "https://github.com/landfall-project/landfall/blob/main/docs/errors.md";

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
        /// What went wrong, for programs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $title] $variant,)+
        }

        impl Code {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// As it stands in `code`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code,)+ }
            }

            /// The same for every problem of this code.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)+ }
            }

            /// The status it is answered with.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self { $(Self::$variant => status!($status),)+ }
            }
        }
    };
}

codes! {
    MalformedRequest BAD_REQUEST "malformed_request" "The request is malformed";
    UnknownField BAD_REQUEST "unknown_field" "The request has a field that does not exist";
    MissingFile BAD_REQUEST "missing_file" "The upload has no file";
    TooManyFiles BAD_REQUEST "too_many_files" "The upload has more than one file";
    EmptyFile BAD_REQUEST "empty_file" "The file is empty";
    InvalidName BAD_REQUEST "invalid_name" "The file's name is not allowed";
    InvalidMetadata BAD_REQUEST "invalid_metadata" "The metadata is not allowed";
    InvalidCursor BAD_REQUEST "invalid_cursor" "The cursor is none of this list";
    Unauthorized UNAUTHORIZED "unauthorized" "A valid token is needed";
    Forbidden FORBIDDEN "forbidden" "The token does not allow this";
    NotFound NOT_FOUND "not_found" "There is nothing here";
    MethodNotAllowed METHOD_NOT_ALLOWED "method_not_allowed" "The method is not allowed here";
    RequestTimeout REQUEST_TIMEOUT "request_timeout" "The request took too long to arrive";
    Conflict CONFLICT "conflict" "The state does not allow this";
    NotStored CONFLICT "not_stored" "The file is not stored";
    PartsMissing CONFLICT "parts_missing" "Parts of the upload are missing";
    PartConflict CONFLICT "part_conflict" "The part has arrived before with other bytes";
    UploadClosed CONFLICT "upload_closed" "The upload takes nothing more";
    InFlight CONFLICT "in_flight" "The first request with this key is under way";
    UploadGone GONE "upload_gone" "The upload is over";
    UnsupportedVersion PRECONDITION_FAILED "unsupported_version" "The protocol's version is not spoken here";
    UploadLocked LOCKED "upload_locked" "Another request is writing to the upload";
    ChecksumMismatch 460 "checksum_mismatch" "The bytes do not have the declared checksum";
    TooLarge PAYLOAD_TOO_LARGE "too_large" "The request is too large";
    QuotaExceeded PAYLOAD_TOO_LARGE "quota_exceeded" "The owner has as much as it may have";
    UnsupportedMediaType UNSUPPORTED_MEDIA_TYPE "unsupported_media_type" "The content type is not understood here";
    TypeNotAllowed UNSUPPORTED_MEDIA_TYPE "type_not_allowed" "Files of this type are not taken in";
    RangeNotSatisfiable RANGE_NOT_SATISFIABLE "range_not_satisfiable" "The range lies outside the file";
    DigestMismatch UNPROCESSABLE_ENTITY "digest_mismatch" "The bytes do not have the declared digest";
    SizeMismatch UNPROCESSABLE_ENTITY "size_mismatch" "The bytes do not have the declared size";
    IdempotencyKeyReused UNPROCESSABLE_ENTITY "idempotency_key_reused" "The key was used for another request";
    RateLimited TOO_MANY_REQUESTS "rate_limited" "Too many requests";
    Internal INTERNAL_SERVER_ERROR "internal" "The server failed";
    Unavailable SERVICE_UNAVAILABLE "unavailable" "The server cannot answer now";
    StagingFull INSUFFICIENT_STORAGE "staging_full" "There is no room for the upload now";
}

/// A field at fault.
pub use wire::FieldError;

/// An error on its way to the client.
#[derive(Debug)]
pub struct Problem {
    pub code: Code,
    /// For people; of this occurrence. Never of the inside of the server.
    pub detail: String,
    pub errors: Vec<FieldError>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl Problem {
    /// A problem the client caused, told in words that say what is allowed.
    #[must_use]
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            errors: Vec::new(),
            headers: Vec::new(),
            cause: None,
        }
    }

    /// A value that cannot be.
    #[must_use]
    pub fn field(code: Code, field: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        let mut problem = Self::new(code, format!("`{field}`: {message}"));
        problem.errors.push(FieldError::new(field, message));
        problem
    }

    /// A failure of the server; the cause is for the log alone.
    #[must_use]
    pub fn failed(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let mut problem = Self::new(
            Code::Internal,
            "The request failed in the server; its log has the reason under the request's id.",
        );
        problem.cause = Some(cause.into());
        problem
    }

    /// A dependency is away; the cause is for the log alone.
    #[must_use]
    pub fn unavailable(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let mut problem = Self::new(
            Code::Unavailable,
            "Something the server depends on does not answer; try again soon.",
        );
        problem.cause = Some(cause.into());
        problem.with_header(http::header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// Another request with the same `Idempotency-Key` does the work.
    #[must_use]
    pub fn in_flight() -> Self {
        Self::new(
            Code::InFlight,
            "The first request with this Idempotency-Key is under way; try again when it is done.",
        )
        .with_header(http::header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// There is no such thing, or it is somebody else's.
    #[must_use]
    pub fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound, format!("There is no such {what}."))
    }

    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Why the server failed, and why that happened, and so on.
    #[must_use]
    pub fn causes(&self) -> Option<String> {
        let mut text = self.cause.as_ref()?.to_string();
        let mut next = self.cause.as_ref()?.source();
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        Some(text)
    }

    /// As it goes over the wire.
    #[must_use]
    pub fn to_wire(&self) -> wire::Problem {
        wire::Problem {
            kind: format!("{EXPLAINED}#{}", self.code.as_str()),
            title: self.code.title().to_owned(),
            status: self.code.status().as_u16(),
            detail: self.detail.clone(),
            code: self.code.as_str().to_owned(),
            errors: (!self.errors.is_empty()).then(|| self.errors.clone()),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.detail)
    }
}

impl Error for Problem {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_ref().map(|cause| &**cause as _)
    }
}

impl ResponseError for Problem {
    fn status(&self) -> StatusCode {
        self.code.status()
    }

    fn as_response(&self) -> Response {
        let body = serde_json::to_vec(&self.to_wire()).expect("a problem is JSON");
        let mut response = Response::builder()
            .status(self.code.status())
            .content_type("application/problem+json")
            .header(http::header::CACHE_CONTROL, "no-store")
            .body(Body::from_vec(body));
        for (name, value) in &self.headers {
            response.headers_mut().insert(name.clone(), value.clone());
        }
        response
    }
}

impl ApiResponse for Problem {
    fn meta() -> MetaResponses {
        MetaResponses {
            responses: vec![MetaResponse {
                description: "A problem (RFC 9457); docs/errors.md lists every code.",
                status: None,
                status_range: None,
                content: vec![MetaMediaType {
                    content_type: "application/problem+json",
                    schema: wire::Problem::schema_ref(),
                }],
                headers: Vec::new(),
            }],
        }
    }

    fn register(registry: &mut Registry) {
        wire::Problem::register(registry);
    }
}

impl From<DbErr> for Problem {
    fn from(error: DbErr) -> Self {
        if db::is_transient(&error) {
            Self::unavailable(error)
        } else {
            Self::failed(error)
        }
    }
}

impl From<InvalidCursor> for Problem {
    fn from(error: InvalidCursor) -> Self {
        Self::field(Code::InvalidCursor, "cursor", error.to_string())
    }
}

impl From<InvalidName> for Problem {
    fn from(error: InvalidName) -> Self {
        Self::field(Code::InvalidName, "filename", error.to_string())
    }
}

impl From<NotAKey> for Problem {
    fn from(error: NotAKey) -> Self {
        Self::failed(error)
    }
}

impl From<AcceptError> for Problem {
    fn from(error: AcceptError) -> Self {
        match error {
            AcceptError::Batch(error @ JoinError::Unknown(_)) => {
                Self::field(Code::NotFound, "batch_id", error.to_string())
            }
            AcceptError::Batch(error @ JoinError::Closed(_)) => {
                Self::field(Code::Conflict, "batch_id", error.to_string())
            }
            AcceptError::Key(error) => error.into(),
            AcceptError::Quota(error) => error.into(),
            AcceptError::Batch(JoinError::Database(error)) | AcceptError::Database(error) => {
                error.into()
            }
        }
    }
}

impl From<KeepError> for Problem {
    fn from(error: KeepError) -> Self {
        match error {
            KeepError::LockLost => Self::in_flight(),
            KeepError::Answer(cause) => Self::failed(cause),
            KeepError::Database(error) => error.into(),
        }
    }
}

impl From<JoinError> for Problem {
    fn from(error: JoinError) -> Self {
        AcceptError::Batch(error).into()
    }
}

impl From<batches::CreateError> for Problem {
    fn from(error: batches::CreateError) -> Self {
        match error {
            batches::CreateError::Key(error) => error.into(),
            batches::CreateError::Database(error) => error.into(),
        }
    }
}

impl From<batches::FinalizeError> for Problem {
    fn from(error: batches::FinalizeError) -> Self {
        match error {
            batches::FinalizeError::NotFound => Self::not_found("batch"),
            batches::FinalizeError::Outbox(error) => error.into(),
            batches::FinalizeError::Database(error) => error.into(),
        }
    }
}

impl From<UploadError> for Problem {
    fn from(error: UploadError) -> Self {
        let code = match error {
            UploadError::NotFound => return Self::not_found("upload"),
            UploadError::Batch(error) => return error.into(),
            UploadError::Key(error) => return error.into(),
            UploadError::Outbox(error) => return error.into(),
            UploadError::Staging(error) => return error.into(),
            UploadError::Database(error) => return error.into(),
            UploadError::Lost(cause) => return Self::failed(cause),
            UploadError::BrokenOff(cause) => return super::body::broken_off(cause.as_ref()),
            UploadError::NoSuchPart { .. } => Code::NotFound,
            UploadError::Closed(_) => Code::UploadClosed,
            UploadError::Joined => Code::Forbidden,
            UploadError::WrongOffset { .. } => Code::Conflict,
            UploadError::Locked | UploadError::Preempted => Code::InFlight,
            UploadError::TooLarge { .. } => Code::TooLarge,
            UploadError::Empty => Code::EmptyFile,
            UploadError::NotAllowed(error) => return error.into(),
            UploadError::Quota(error) => return error.into(),
            UploadError::LengthFixed { .. } | UploadError::CannotJoin(_) => Code::MalformedRequest,
            UploadError::ChecksumMismatch => Code::ChecksumMismatch,
            UploadError::SizeMismatch { .. } => Code::SizeMismatch,
            UploadError::DigestMismatch => Code::DigestMismatch,
            UploadError::PartConflict => Code::PartConflict,
            UploadError::PartsMissing(_) => Code::PartsMissing,
            UploadError::Stalled => Code::RequestTimeout,
        };
        let problem = Self::new(code, sentence(&error.to_string()));
        if code == Code::InFlight {
            problem.with_header(http::header::RETRY_AFTER, HeaderValue::from_static("1"))
        } else {
            problem
        }
    }
}

/// With a capital and a full stop.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(char::to_uppercase);
    format!(
        "{}{}.",
        first.into_iter().flatten().collect::<String>(),
        chars.as_str()
    )
}

impl From<DeleteError> for Problem {
    fn from(error: DeleteError) -> Self {
        match error {
            DeleteError::NotFound => Self::not_found("file"),
            error @ DeleteError::NotStored(_) => Self::new(Code::NotStored, error.to_string()),
            DeleteError::Database(error) => error.into(),
            DeleteError::Outbox(error) => error.into(),
        }
    }
}

impl From<WriteError> for Problem {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Database(error) => error.into(),
            other => Self::failed(other),
        }
    }
}

impl From<NotAllowed> for Problem {
    fn from(error: NotAllowed) -> Self {
        let field = match error {
            NotAllowed::Extension(_) | NotAllowed::OtherExtension(_) => "filename",
            NotAllowed::Type(_) | NotAllowed::Bytes { .. } | NotAllowed::NoImage(_) => {
                "content_type"
            }
        };
        Self::field(Code::TypeNotAllowed, field, error.to_string())
    }
}

impl From<QuotaError> for Problem {
    fn from(error: QuotaError) -> Self {
        match error {
            QuotaError::Exceeded { .. } => {
                Self::new(Code::QuotaExceeded, sentence(&error.to_string()))
            }
            QuotaError::Database(error) => error.into(),
        }
    }
}

impl From<StagingError> for Problem {
    fn from(error: StagingError) -> Self {
        match error {
            StagingError::Full => Self::new(
                Code::StagingFull,
                "Staging has no room for this upload now; what was sent of it is discarded. Try again later.",
            )
            .with_header(http::header::RETRY_AFTER, HeaderValue::from_static("60")),
            StagingError::TooLarge { limit } => {
                Self::new(Code::TooLarge, format!("The largest file taken in has {limit} bytes."))
            }
            StagingError::WrongSize { expected, found } => Self::new(
                Code::SizeMismatch,
                format!("{expected} bytes were declared, {found} came."),
            ),
            StagingError::Body(cause) => super::body::broken_off(cause.as_ref()),
            other if other.is_transient() => Self::unavailable(other),
            other => Self::failed(other),
        }
    }
}

impl From<StorageError> for Problem {
    fn from(error: StorageError) -> Self {
        if error.is_transient() {
            Self::unavailable(error)
        } else {
            Self::failed(error)
        }
    }
}

impl From<WebhookError> for Problem {
    fn from(error: WebhookError) -> Self {
        match error {
            WebhookError::Invalid(faults) => {
                let mut problem = Self::new(
                    Code::MalformedRequest,
                    "Fields of the webhook are not allowed; `errors` names each.",
                );
                let errors = faults.into_iter();
                problem.errors = errors
                    .map(|fault| FieldError::new(fault.field, fault.message))
                    .collect();
                problem
            }
            WebhookError::NotFound => Self::not_found("webhook"),
            WebhookError::Event(error) => error.into(),
            WebhookError::Key(error) => error.into(),
            WebhookError::Database(error) => error.into(),
        }
    }
}

impl From<AgainError> for Problem {
    fn from(error: AgainError) -> Self {
        match error {
            AgainError::NoSuchEvent => Self::not_found("event"),
            AgainError::NoSuchEndpoint => Self::not_found("active webhook"),
            AgainError::NotSubscribed => Self::new(Code::Conflict, error.to_string()),
            AgainError::Database(error) => error.into(),
        }
    }
}
