//! `batches`: groups of files, with counts.

use crate::{BatchId, Timestamp};
use sea_orm::entity::prelude::*;

/// The progress of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, DeriveActiveEnum)]
#[sea_orm(
    rs_type = "String",
    db_type = "String(StringLen::N(16))",
    rename_all = "snake_case"
)]
pub enum BatchStatus {
    /// No files yet.
    Init,
    /// Files are being received or finalized.
    InProgress,
    /// Closed, and every file is stored.
    Complete,
    /// Closed, and some files failed.
    Partial,
    /// Closed, and no file was stored.
    Failed,
}

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "batches")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: BatchId,
    pub owner: Option<String>,
    pub status: BatchStatus,
    pub metadata: Json,
    pub total_files: i64,
    pub stored_count: i64,
    pub failed_count: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// When it was closed to further files.
    pub finalized_at: Option<Timestamp>,
    /// When its last file became final and `batch.complete` was written.
    pub completed_at: Option<Timestamp>,
    /// How often the retry of a failed file reopened it after it was complete.
    pub reopened_count: i32,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
