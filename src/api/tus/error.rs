//! Errors with tus-specific statuses.

use super::headers::UPLOAD_OFFSET;
use crate::api::problem::{Code, Problem};
use entity::{
    Timestamp,
    upload::{Model, UploadStatus},
};
use http::HeaderValue;
use landfall_core::uploads::{UploadError, status_at};

/// Like [`Problem::from`], except where the protocol requires another status.
pub(super) fn problem(error: UploadError) -> Problem {
    match error {
        UploadError::Closed(status) => closed(status),
        UploadError::WrongOffset { expected, .. } => {
            Problem::from(error).with_header(UPLOAD_OFFSET, HeaderValue::from(expected))
        }
        UploadError::Locked | UploadError::Preempted => {
            Problem::new(Code::UploadLocked, error.to_string())
        }
        other => other.into(),
    }
}

/// An aborted upload no longer exists (404); any other closed upload is gone (410).
fn closed(status: UploadStatus) -> Problem {
    match status {
        UploadStatus::Aborted => Problem::not_found("upload"),
        _ => Problem::new(
            Code::UploadGone,
            "the upload has expired or failed; start a new one",
        ),
    }
}

/// Rejects an upload that is closed but not complete.
pub(super) fn require_open(upload: &Model, now: Timestamp) -> Result<(), Problem> {
    match status_at(upload, now) {
        UploadStatus::Init | UploadStatus::InProgress | UploadStatus::Complete => Ok(()),
        status @ (UploadStatus::Failed | UploadStatus::Aborted | UploadStatus::Expired) => {
            Err(closed(status))
        }
    }
}
