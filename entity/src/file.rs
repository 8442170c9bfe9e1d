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
    /// Given up, with `error_code` and `error_message`. Nothing was announced. The bytes are kept until
    /// `retryable_until`; a retry stages the file again.
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
    /// Where the bytes wait; none once the bytes are in storage or gone. A failed file keeps them until
    /// `retryable_until`.
    pub staging_key: Option<String>,
    /// Reserved before the first byte is written to it, and never used for another file. Only a file whose object was
    /// replaced on purpose (`file_overwrite`) has given it up.
    pub storage_key: Option<String>,
    /// Finalize attempts that failed and were put off.
    pub finalize_attempts: i32,
    /// Counted by releases before suspects; not used any more, and dropped by a later release.
    pub finalize_crashes: i32,
    /// Since when it may have killed a worker: it runs alone until a run ends in an orderly way.
    pub suspect_since: Option<Timestamp>,
    /// Processes in a row that died while they ran it alone.
    pub alone_deaths: i32,
    /// When the heartbeat of the process that ran it alone was first missed.
    pub owner_missed_at: Option<Timestamp>,
    /// When a lease on it last ran out: its worker's last requests may be carried out later.
    pub lease_lost_at: Option<Timestamp>,
    /// When the first of the faults happened that have kept the file from storage since; `workers.retry_for` is
    /// measured from it.
    pub first_fault_at: Option<Timestamp>,
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
    /// Until when a failed file keeps its staged bytes; none: they are being removed, or gone.
    pub retryable_until: Option<Timestamp>,
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
    /// When the last bytes of a failed or deleted file were removed.
    pub purged_at: Option<Timestamp>,
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
            suspect_since: None,
            alone_deaths: 0,
            owner_missed_at: None,
            lease_lost_at: None,
            first_fault_at: None,
            next_attempt_at: None,
            lease_owner: None,
            lease_expires_at: None,
            claimed_at: None,
            claimed_by: None,
            landed_at: None,
            error_code: None,
            error_message: None,
            retryable_until: None,
            traceparent: None,
            created_at: now,
            updated_at: now,
            staged_at: None,
            stored_at: None,
            expires_at: None,
            expiring_announced_at: None,
            deleted_at: None,
            purged_at: None,
        }
    }
}
