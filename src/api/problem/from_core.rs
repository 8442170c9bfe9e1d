//! Converts each error of the core to a problem.

use super::{Code, FieldError, Problem};
use http::HeaderValue;
use landfall_core::{
    batches::{self, JoinBatchError},
    db,
    files::{AcceptError, DeleteError, InvalidName, PiecesError, RetryError},
    idempotency::RecordResponseError,
    media_policy::MediaPolicyError,
    outbox::{RedeliveryError, WriteError},
    pagination::InvalidCursor,
    quota::QuotaError,
    staging::StagingError,
    storage::{InvalidStorageKey, StorageError},
    tokens::TokenError,
    upload_links::{UploadLinkError, UseLinkError},
    uploads::UploadError,
    webhooks::WebhookError,
};
use sea_orm::DbErr;

impl From<DbErr> for Problem {
    fn from(error: DbErr) -> Self {
        if db::is_full(&error) {
            Self::database_full(error)
        } else if db::is_transient(&error) {
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

impl From<InvalidStorageKey> for Problem {
    fn from(error: InvalidStorageKey) -> Self {
        Self::failed(error)
    }
}

impl From<AcceptError> for Problem {
    fn from(error: AcceptError) -> Self {
        match error {
            AcceptError::Batch(error @ JoinBatchError::Unknown(_)) => {
                Self::field(Code::NotFound, "batch_id", error.to_string())
            }
            AcceptError::Batch(error @ JoinBatchError::Closed(_)) => {
                Self::field(Code::Conflict, "batch_id", error.to_string())
            }
            AcceptError::Key(error) => error.into(),
            AcceptError::Quota(error) => error.into(),
            AcceptError::Link(error) => error.into(),
            AcceptError::Batch(JoinBatchError::Database(error)) | AcceptError::Database(error) => {
                error.into()
            }
        }
    }
}

impl From<RecordResponseError> for Problem {
    fn from(error: RecordResponseError) -> Self {
        match error {
            RecordResponseError::LockLost => Self::in_flight(),
            RecordResponseError::StoredResponse(cause) => Self::failed(cause),
            RecordResponseError::Database(error) => error.into(),
        }
    }
}

impl From<JoinBatchError> for Problem {
    fn from(error: JoinBatchError) -> Self {
        AcceptError::Batch(error).into()
    }
}

impl From<batches::CreateBatchError> for Problem {
    fn from(error: batches::CreateBatchError) -> Self {
        match error {
            batches::CreateBatchError::Key(error) => error.into(),
            error @ batches::CreateBatchError::TooMany => {
                Self::new(Code::RateLimited, sentence(&error.to_string()))
                    .with_header(http::header::RETRY_AFTER, HeaderValue::from_static("3600"))
            }
            batches::CreateBatchError::Database(error) => error.into(),
        }
    }
}

impl From<batches::FinalizeBatchError> for Problem {
    fn from(error: batches::FinalizeBatchError) -> Self {
        match error {
            batches::FinalizeBatchError::NotFound => Self::not_found("batch"),
            batches::FinalizeBatchError::Outbox(error) => error.into(),
            batches::FinalizeBatchError::Database(error) => error.into(),
        }
    }
}

impl From<PiecesError> for Problem {
    fn from(error: PiecesError) -> Self {
        match error {
            PiecesError::Database(error) => error.into(),
            error @ PiecesError::NotPieces(_) => Self::failed(error),
        }
    }
}

impl From<RetryError> for Problem {
    fn from(error: RetryError) -> Self {
        match error {
            RetryError::NotFound => Self::not_found("file"),
            RetryError::NotFailed(_) | RetryError::BytesGone => {
                Self::new(Code::NotRetryable, sentence(&error.to_string()))
            }
            RetryError::Quota(error) => error.into(),
            RetryError::Key(error) => error.into(),
            RetryError::Staging(error) => error.into(),
            RetryError::Database(error) => error.into(),
        }
    }
}

impl From<UploadError> for Problem {
    fn from(error: UploadError) -> Self {
        let code = match error {
            UploadError::NotFound => return Self::not_found("upload"),
            UploadError::Batch(error) => return error.into(),
            UploadError::Link(error) => return error.into(),
            UploadError::Key(error) => return error.into(),
            UploadError::Outbox(error) => return error.into(),
            UploadError::Staging(error) => return error.into(),
            UploadError::Database(error) => return error.into(),
            UploadError::Pieces(error) => return error.into(),
            error @ UploadError::Unreadable(_) => return Self::unavailable(error),
            UploadError::Lost(cause) => return Self::failed(cause),
            UploadError::BrokenOff(cause) => {
                return crate::api::connection::body::interrupted(cause.as_ref());
            }
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

/// Capitalizes the text and adds a full stop.
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

impl From<MediaPolicyError> for Problem {
    fn from(error: MediaPolicyError) -> Self {
        let field = match error {
            MediaPolicyError::Extension(_) | MediaPolicyError::OtherExtension(_) => "filename",
            MediaPolicyError::Type(_)
            | MediaPolicyError::Bytes { .. }
            | MediaPolicyError::NoImage(_) => "content_type",
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
                "Staging has no space for this upload: staging.quota is used up, or less than staging.min_free would \
                 remain. The received bytes were discarded. Try again later; `/readyz` has the figures.",
            )
            .with_header(http::header::RETRY_AFTER, HeaderValue::from_static("60")),
            StagingError::TooLarge { limit } => {
                Self::new(Code::TooLarge, format!("Files must be at most {limit} bytes."))
            }
            StagingError::WrongSize { expected, found } => Self::new(
                Code::SizeMismatch,
                format!("{expected} bytes were declared, but {found} arrived."),
            ),
            StagingError::Body(cause) => crate::api::connection::body::interrupted(cause.as_ref()),
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
                    "Some fields of the webhook are invalid, listed in `errors`.",
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

impl From<UseLinkError> for Problem {
    fn from(error: UseLinkError) -> Self {
        let code = match error {
            UseLinkError::NotFound => return Self::not_found("upload link"),
            UseLinkError::Database(error) => return error.into(),
            UseLinkError::Expired => Code::LinkExpired,
            UseLinkError::Revoked => Code::LinkRevoked,
            UseLinkError::Used => Code::LinkUsed,
            UseLinkError::TooManyPartials => Code::Conflict,
        };
        Self::new(code, sentence(&error.to_string()))
    }
}

impl From<UploadLinkError> for Problem {
    fn from(error: UploadLinkError) -> Self {
        match error {
            UploadLinkError::Invalid(faults) => {
                let detail = "Some fields of the upload link are invalid, listed in `errors`.";
                let mut problem = Self::new(Code::MalformedRequest, detail);
                let errors = faults.into_iter();
                problem.errors = errors
                    .map(|fault| FieldError::new(fault.field, fault.message))
                    .collect();
                problem
            }
            UploadLinkError::NotFound => Self::not_found("upload link"),
            UploadLinkError::Batch(error) => error.into(),
            UploadLinkError::Response(error) => error.into(),
            UploadLinkError::Database(error) => error.into(),
        }
    }
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Owner => Self::field(Code::MalformedRequest, "owner", error.to_string()),
            TokenError::NoScope => Self::field(Code::MalformedRequest, "scopes", error.to_string()),
            TokenError::NotFound => Self::not_found("token"),
            TokenError::Database(error) => error.into(),
            TokenError::Response(error) => error.into(),
        }
    }
}

impl From<RedeliveryError> for Problem {
    fn from(error: RedeliveryError) -> Self {
        match error {
            RedeliveryError::NoSuchEvent => Self::not_found("event"),
            RedeliveryError::NoSuchEndpoint => Self::not_found("active webhook"),
            RedeliveryError::NotSubscribed => Self::new(Code::Conflict, error.to_string()),
            RedeliveryError::Database(error) => error.into(),
        }
    }
}
