//! What tus has statuses of its own for.

use crate::api::problem::{Code, Problem};
use entity::{
    Timestamp,
    upload::{Model, UploadStatus},
};
use landfall_core::uploads::{UploadError, status_at};

/// As [`Problem::from`], but where the protocol says otherwise.
pub(super) fn problem(error: UploadError) -> Problem {
    match error {
        UploadError::Closed(_) => gone(),
        UploadError::Locked | UploadError::Preempted => {
            Problem::new(Code::UploadLocked, error.to_string())
        }
        other => other.into(),
    }
}

fn gone() -> Problem {
    Problem::new(
        Code::UploadGone,
        "the upload has expired, failed or been given up; begin again",
    )
}

/// Refuses an upload that is over without being complete.
pub(super) fn require_there(upload: &Model, now: Timestamp) -> Result<(), Problem> {
    match status_at(upload, now) {
        UploadStatus::Init | UploadStatus::InProgress | UploadStatus::Complete => Ok(()),
        UploadStatus::Failed | UploadStatus::Aborted | UploadStatus::Expired => Err(gone()),
    }
}
