//! Event types and the exact fields of their payloads.

use crate::digest::Sha256Digest;
use entity::{
    BatchId, FileId, Timestamp, WebhookId,
    batch::{self, BatchStatus},
    file,
};
use serde::Serialize;
use std::{fmt, str::FromStr};

/// The types of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventType {
    /// A file was verified and stored.
    FileStored,
    /// A stored file is about to expire.
    FileExpiring,
    /// A stored file was deleted.
    FileDeleted,
    /// Every file of a closed batch is final.
    BatchComplete,
    /// A test of an endpoint, sent on request and only to that endpoint, regardless of its subscription.
    WebhookTest,
}

impl EventType {
    /// Every event type, in the order in which they occur for a file.
    pub const ALL: [Self; 5] = [
        Self::FileStored,
        Self::FileExpiring,
        Self::FileDeleted,
        Self::BatchComplete,
        Self::WebhookTest,
    ];

    /// The name in the database and in payloads.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FileStored => "file.stored",
            Self::FileExpiring => "file.expiring",
            Self::FileDeleted => "file.deleted",
            Self::BatchComplete => "batch.complete",
            Self::WebhookTest => "webhook.test",
        }
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// There is no event type with this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no event type `{0}`")]
pub struct UnknownEventType(pub String);

impl FromStr for EventType {
    type Err = UnknownEventType;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|known| known.as_str() == text)
            .ok_or_else(|| UnknownEventType(text.chars().take(80).collect()))
    }
}

/// The payload of `file.stored`: exactly these six fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileStored {
    pub file_id: FileId,
    pub original_filename: String,
    pub content_type: String,
    pub size_bytes: i64,
    /// Lower-case hexadecimal.
    pub sha256: String,
    /// The URL of the object at the time of the commit; a signed URL expires.
    pub url: String,
}

impl FileStored {
    /// For a file that this transaction stores; its row may not contain the digest yet.
    #[must_use]
    pub fn from_model(file: &file::Model, sha256: Sha256Digest, url: String) -> Self {
        Self {
            file_id: file.id,
            original_filename: file.original_filename.clone(),
            content_type: file.content_type.clone(),
            size_bytes: file.size_bytes,
            sha256: sha256.to_string(),
            url,
        }
    }
}

/// The six fields of a file whose row is complete; `url` is null once the object is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct StoredFilePayload {
    file_id: FileId,
    original_filename: String,
    content_type: String,
    size_bytes: i64,
    sha256: Option<String>,
    url: Option<String>,
}

impl StoredFilePayload {
    fn from_model(file: &file::Model, url: Option<String>) -> Self {
        Self {
            file_id: file.id,
            original_filename: file.original_filename.clone(),
            content_type: file.content_type.clone(),
            size_bytes: file.size_bytes,
            sha256: file.sha256.clone(),
            url,
        }
    }
}

/// The payload of `file.expiring`: the six fields and `expires_at`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileExpiring {
    #[serde(flatten)]
    file: StoredFilePayload,
    expires_at: Timestamp,
}

impl FileExpiring {
    /// For a stored file.
    #[must_use]
    pub fn from_model(file: &file::Model, url: String, expires_at: Timestamp) -> Self {
        Self {
            file: StoredFilePayload::from_model(file, Some(url)),
            expires_at,
        }
    }
}

/// The payload of `file.deleted`: the six fields with `url` null, and `deleted_at`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileDeleted {
    #[serde(flatten)]
    file: StoredFilePayload,
    deleted_at: Timestamp,
}

impl FileDeleted {
    /// For a stored file that was deleted.
    #[must_use]
    pub fn from_model(file: &file::Model, deleted_at: Timestamp) -> Self {
        Self {
            file: StoredFilePayload::from_model(file, None),
            deleted_at,
        }
    }
}

/// The payload of `batch.complete`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BatchComplete {
    pub batch_id: BatchId,
    /// `complete`, `partial` or `failed`.
    pub status: &'static str,
    pub total_files: i64,
    pub stored_count: i64,
    pub failed_count: i64,
}

impl BatchComplete {
    /// For a closed batch whose counts are final, with the status that this transaction gives it.
    #[must_use]
    pub fn from_model(batch: &batch::Model, status: BatchStatus) -> Self {
        Self {
            batch_id: batch.id,
            status: match status {
                BatchStatus::Init => "init",
                BatchStatus::InProgress => "in_progress",
                BatchStatus::Complete => "complete",
                BatchStatus::Partial => "partial",
                BatchStatus::Failed => "failed",
            },
            total_files: batch.total_files,
            stored_count: batch.stored_count,
            failed_count: batch.failed_count,
        }
    }
}

/// The payload of `webhook.test`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WebhookTest {
    pub webhook_id: WebhookId,
    pub message: &'static str,
}

impl WebhookTest {
    /// For an endpoint.
    #[must_use]
    pub const fn new(webhook_id: WebhookId) -> Self {
        Self {
            webhook_id,
            message: "This is a test. The endpoint works if it answers 2xx.",
        }
    }
}
