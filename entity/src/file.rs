//! `files`: what was taken in, where it waits or is stored, and who is working on it.

use crate::{BatchId, FileId, Timestamp};
use sea_orm::entity::prelude::*;

/// Where a file is on its way ashore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, DeriveActiveEnum)]
#[sea_orm(
    rs_type = "String",
    db_type = "String(StringLen::N(16))",
    rename_all = "snake_case"
)]
pub enum FileStatus {
    /// Bytes are still arriving; moved on by the request that completes the upload. A crash leaves it to the upload's expiry.
    Uploading,
    /// All bytes are durable in staging; a finalize job claims it. A crash leaves it to the sweep, which pushes the job again.
    Staged,
    /// A worker holds the lease. A crash leaves an expired lease, which the next claim takes over.
    Finalizing,
    /// The object and its `file.stored` event are committed together.
    Stored,
    /// Given up, with `error_code` and `error_message`. Nothing was announced.
    Failed,
    /// Deleted by its owner or by its expiry; the object goes in a job of its own, which the sweep repeats until it has.
    Deleted,
}

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "files")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: FileId,
    /// Who the token spoke for; none without tokens.
    pub owner: Option<String>,
    pub status: FileStatus,
    /// As the client sent it, Unicode and all; never part of a path.
    pub original_filename: String,
    /// The name in lower case, for finding files by the beginning of their name.
    pub search_name: String,
    pub content_type: String,
    pub size_bytes: i64,
    /// SHA-256 of the stored bytes, lower-case hex; set by the commit that stores the file.
    pub sha256: Option<String>,
    /// SHA-256 the client declared, checked before the file can be stored.
    pub declared_sha256: Option<String>,
    /// SHA-256 of the staged bytes as they came in, where they came in order: they need not be read again for it.
    pub staged_sha256: Option<String>,
    pub metadata: Json,
    pub batch_id: Option<BatchId>,
    /// Where the bytes wait; none once the bytes are in storage or gone.
    pub staging_key: Option<String>,
    /// Reserved before the first byte is written to it; cleared once the object is really gone.
    pub storage_key: Option<String>,
    /// Finalize attempts that failed and were put off.
    pub finalize_attempts: i32,
    /// Finalize runs that ended without a word: the worker died.
    pub finalize_crashes: i32,
    /// Not to be finalized before this moment.
    pub next_attempt_at: Option<Timestamp>,
    pub lease_owner: Option<String>,
    pub lease_expires_at: Option<Timestamp>,
    /// When a worker last claimed it, and who that was: kept when the lease is given back.
    pub claimed_at: Option<Timestamp>,
    pub claimed_by: Option<String>,
    /// When its bytes were hashed and its object was whole, before the commit that stored it.
    pub landed_at: Option<Timestamp>,
    pub error_code: Option<String>,
    pub error_message: Option<String>,
    /// W3C trace context of the upload, carried into the jobs and the webhook.
    pub traceparent: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub staged_at: Option<Timestamp>,
    pub stored_at: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    /// When `file.expiring` was written.
    pub expiring_announced_at: Option<Timestamp>,
    pub deleted_at: Option<Timestamp>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Model {
    /// A row that begins now, and says nothing yet but what it is and how it stands.
    #[must_use]
    pub fn begun(id: FileId, status: FileStatus, now: Timestamp) -> Self {
        Self {
            id,
            owner: None,
            status,
            original_filename: String::new(),
            search_name: String::new(),
            content_type: String::new(),
            size_bytes: 0,
            sha256: None,
            declared_sha256: None,
            staged_sha256: None,
            metadata: Json::Object(serde_json::Map::new()),
            batch_id: None,
            staging_key: None,
            storage_key: None,
            finalize_attempts: 0,
            finalize_crashes: 0,
            next_attempt_at: None,
            lease_owner: None,
            lease_expires_at: None,
            claimed_at: None,
            claimed_by: None,
            landed_at: None,
            error_code: None,
            error_message: None,
            traceparent: None,
            created_at: now,
            updated_at: now,
            staged_at: None,
            stored_at: None,
            expires_at: None,
            expiring_announced_at: None,
            deleted_at: None,
        }
    }
}
