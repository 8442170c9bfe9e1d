//! Batches.

use chrono::{DateTime, Utc};
use entity::batch;
use poem_openapi::{Enum, Object};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// The status of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Enum)]
#[serde(rename_all = "snake_case")]
#[oai(rename_all = "snake_case")]
pub enum BatchStatus {
    Init,
    InProgress,
    Complete,
    Partial,
    Failed,
}

impl From<batch::BatchStatus> for BatchStatus {
    fn from(status: batch::BatchStatus) -> Self {
        match status {
            batch::BatchStatus::Init => Self::Init,
            batch::BatchStatus::InProgress => Self::InProgress,
            batch::BatchStatus::Complete => Self::Complete,
            batch::BatchStatus::Partial => Self::Partial,
            batch::BatchStatus::Failed => Self::Failed,
        }
    }
}

/// A batch to create.
#[derive(Clone, Debug, Default, Deserialize, Object)]
pub struct NewBatch {
    /// A JSON object of up to 16 KiB.
    #[serde(default)]
    #[oai(nullable)]
    pub metadata: Option<Value>,
}

/// A group of files.
#[derive(Clone, Debug, Serialize, Object)]
pub struct Batch {
    pub id: Uuid,
    pub status: BatchStatus,
    pub total_files: i64,
    pub stored_count: i64,
    pub failed_count: i64,
    /// Files that are not final yet.
    pub pending_count: i64,
    pub created_at: DateTime<Utc>,
    /// When the batch was closed; null while it is open.
    #[oai(nullable)]
    pub finalized_at: Option<DateTime<Utc>>,
}

impl From<batch::Model> for Batch {
    fn from(row: batch::Model) -> Self {
        Self {
            id: row.id.0,
            status: row.status.into(),
            total_files: row.total_files,
            stored_count: row.stored_count,
            failed_count: row.failed_count,
            pending_count: row.total_files - row.stored_count - row.failed_count,
            created_at: row.created_at,
            finalized_at: row.finalized_at,
        }
    }
}
