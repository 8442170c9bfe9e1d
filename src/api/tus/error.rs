//! What tus has statuses of its own for.

use super::headers::UPLOAD_OFFSET;
use crate::api::problem::{Code, Problem};
use entity::{
    Timestamp,
    upload::{Model, UploadStatus},
};
use http::HeaderValue;
use landfall_core::uploads::{UploadError, status_at};

/// As [`Problem::from`], but where the protocol says otherwise.
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

/// An upload that its client has given up is not there any more; of any other its client is told that it was.
fn closed(status: UploadStatus) -> Problem {
    match status {
        UploadStatus::Aborted => Problem::not_found("upload"),
        _ => Problem::new(
            Code::UploadGone,
            "the upload has expired or failed; begin again",
        ),
    }
}

/// Refuses an upload that is over without being complete.
pub(super) fn require_open(upload: &Model, now: Timestamp) -> Result<(), Problem> {
    match status_at(upload, now) {
        UploadStatus::Init | UploadStatus::InProgress | UploadStatus::Complete => Ok(()),
        status @ (UploadStatus::Failed | UploadStatus::Aborted | UploadStatus::Expired) => {
            Err(closed(status))
        }
    }
}
