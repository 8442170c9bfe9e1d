//! Upload sessions.

use chrono::{DateTime, Utc};
use entity::upload;
use landfall_core::uploads::Ranges;
use poem_openapi::{Enum, Object, types::Example};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// The status of an upload session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Enum)]
#[serde(rename_all = "snake_case")]
#[oai(rename_all = "snake_case")]
pub enum SessionStatus {
    Init,
    InProgress,
    Complete,
    Failed,
    Aborted,
    Expired,
}

impl From<upload::UploadStatus> for SessionStatus {
    fn from(status: upload::UploadStatus) -> Self {
        match status {
            upload::UploadStatus::Init => Self::Init,
            upload::UploadStatus::InProgress => Self::InProgress,
            upload::UploadStatus::Complete => Self::Complete,
            upload::UploadStatus::Failed => Self::Failed,
            upload::UploadStatus::Aborted => Self::Aborted,
            upload::UploadStatus::Expired => Self::Expired,
        }
    }
}

/// An upload session to create.
#[derive(Clone, Debug, Deserialize, Object)]
#[oai(example)]
pub struct NewUpload {
    pub original_filename: String,
    #[serde(default)]
    #[oai(nullable)]
    pub content_type: Option<String>,
    /// At least 1.
    pub total_size_bytes: u64,
    /// The size of every part except the last; adjusted to between 64 KiB and 5 GiB, and raised if there would be more
    /// than 10,000 parts.
    #[serde(default)]
    #[oai(nullable)]
    pub chunk_size_bytes: Option<u64>,
    /// The open batch to add the file to.
    #[serde(default)]
    #[oai(nullable)]
    pub batch_id: Option<Uuid>,
    /// A JSON object of up to 16 KiB.
    #[serde(default)]
    #[oai(nullable)]
    pub metadata: Option<Value>,
    /// The expected SHA-256 of the file, in hexadecimal.
    #[serde(default)]
    #[oai(nullable)]
    pub sha256: Option<String>,
}

impl Example for NewUpload {
    fn example() -> Self {
        Self {
            original_filename: "Été à Zürich.mp4".to_owned(),
            content_type: Some("video/mp4".to_owned()),
            total_size_bytes: 73_400_320,
            chunk_size_bytes: None,
            batch_id: None,
            metadata: Some(serde_json::json!({ "album": "summer" })),
            sha256: None,
        }
    }
}

/// An upload session: an upload in parts.
#[derive(Clone, Debug, Serialize, Object)]
pub struct Session {
    pub id: Uuid,
    /// The id of the resulting file.
    pub file_id: Uuid,
    pub status: SessionStatus,
    /// The size of every part except the last.
    pub chunk_size_bytes: i64,
    pub total_size_bytes: i64,
    pub total_parts: i32,
    pub completed_parts: i32,
    pub bytes_received: i64,
    /// The received parts, such as `1-50,52,55-100`.
    pub received_parts: String,
    /// When the session expires; each part extends it.
    pub expires_at: DateTime<Utc>,
}

impl Session {
    /// Converts a row, its current status and the parts received.
    #[must_use]
    pub fn from_row(row: &upload::Model, status: upload::UploadStatus, received: &Ranges) -> Self {
        Self {
            id: row.id.0,
            file_id: row.file_id.0,
            status: status.into(),
            chunk_size_bytes: row.chunk_size_bytes.unwrap_or(0),
            total_size_bytes: row.total_size_bytes.unwrap_or(0),
            total_parts: row.total_parts.unwrap_or(0),
            completed_parts: row.completed_parts,
            bytes_received: row.bytes_received,
            received_parts: received.to_string(),
            expires_at: row.expires_at,
        }
    }
}

/// A received part.
#[derive(Clone, Debug, Serialize, Object)]
pub struct Part {
    pub part_number: u32,
    pub size_bytes: u64,
    /// 64 lower-case hexadecimal digits.
    pub sha256: String,
}
