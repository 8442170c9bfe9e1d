//! Files.

use chrono::{DateTime, Utc};
use entity::file;
use landfall_core::files;
use poem_openapi::{Enum, Object, types::Example};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

/// The status of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Enum)]
#[serde(rename_all = "snake_case")]
#[oai(rename_all = "snake_case")]
pub enum FileStatus {
    Uploading,
    Staged,
    Finalizing,
    Stored,
    Failed,
    Deleted,
}

impl From<file::FileStatus> for FileStatus {
    fn from(status: file::FileStatus) -> Self {
        match status {
            file::FileStatus::Uploading => Self::Uploading,
            file::FileStatus::Staged => Self::Staged,
            file::FileStatus::Finalizing => Self::Finalizing,
            file::FileStatus::Stored => Self::Stored,
            file::FileStatus::Failed => Self::Failed,
            file::FileStatus::Deleted => Self::Deleted,
        }
    }
}

impl From<FileStatus> for file::FileStatus {
    fn from(status: FileStatus) -> Self {
        match status {
            FileStatus::Uploading => Self::Uploading,
            FileStatus::Staged => Self::Staged,
            FileStatus::Finalizing => Self::Finalizing,
            FileStatus::Stored => Self::Stored,
            FileStatus::Failed => Self::Failed,
            FileStatus::Deleted => Self::Deleted,
        }
    }
}

/// Why a file failed.
#[derive(Clone, Debug, Serialize, Object)]
pub struct FileError {
    /// Stable, for programs.
    pub code: String,
    /// For people.
    pub message: String,
}

/// A file, from its first byte to after its deletion.
#[derive(Clone, Debug, Serialize, Object)]
#[oai(example)]
pub struct File {
    pub id: Uuid,
    pub status: FileStatus,
    /// The name as it was sent.
    pub original_filename: String,
    /// The declared media type; if none was declared, the detected one once the file is stored.
    pub content_type: String,
    pub size_bytes: i64,
    /// The SHA-256 of the stored bytes, 64 lower-case hexadecimal digits; null until stored.
    #[oai(nullable)]
    pub sha256: Option<String>,
    /// The download URL, generated for each response; null unless stored.
    #[oai(nullable)]
    pub url: Option<String>,
    /// The JSON object sent with the upload.
    pub metadata: Value,
    #[oai(nullable)]
    pub batch_id: Option<Uuid>,
    /// The owner of the token; null without tokens.
    #[oai(nullable)]
    pub owner: Option<String>,
    /// Why the file failed; null unless it did.
    #[oai(nullable)]
    pub error: Option<FileError>,
    /// Until when a failed file keeps its bytes and can be retried; null if it did not fail or the bytes are gone.
    #[oai(nullable)]
    pub retryable_until: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
    #[oai(nullable)]
    pub stored_at: Option<DateTime<Utc>>,
    /// When the file will be deleted; null for never.
    #[oai(nullable)]
    pub expires_at: Option<DateTime<Utc>>,
}

impl File {
    /// Converts a row; `url` is set if the file is stored.
    #[must_use]
    pub fn from_row(row: file::Model, url: Option<String>) -> Self {
        let retryable_until = files::retryable_until(&row);
        let error = row.error_code.map(|code| FileError {
            code,
            message: row.error_message.unwrap_or_default(),
        });
        Self {
            id: row.id.0,
            status: row.status.into(),
            original_filename: row.original_filename,
            content_type: row.content_type,
            size_bytes: row.size_bytes,
            sha256: row.sha256,
            url,
            metadata: row.metadata,
            batch_id: row.batch_id.map(|id| id.0),
            owner: row.owner,
            error,
            retryable_until,
            created_at: row.created_at,
            updated_at: row.updated_at,
            stored_at: row.stored_at,
            expires_at: row.expires_at,
        }
    }
}

impl Example for File {
    fn example() -> Self {
        let at = DateTime::UNIX_EPOCH + chrono::TimeDelta::days(20_000);
        Self {
            id: Uuid::from_u128(0x0192_8f4e_6f00_7a3b_8c1d_2e3f_4a5b_6c7d),
            status: FileStatus::Stored,
            original_filename: "Été à Zürich.mp4".to_owned(),
            content_type: "video/mp4".to_owned(),
            size_bytes: 73_400_320,
            sha256: Some(
                "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".to_owned(),
            ),
            url: Some(
                "https://files.example.com/v1/files/01928f4e-6f00-7a3b-8c1d-2e3f4a5b6c7d/content"
                    .to_owned(),
            ),
            metadata: serde_json::json!({ "album": "summer" }),
            batch_id: None,
            owner: None,
            error: None,
            retryable_until: None,
            created_at: at,
            updated_at: at,
            stored_at: Some(at),
            expires_at: None,
        }
    }
}
