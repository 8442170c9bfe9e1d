//! `files`: received files, where their bytes are, and which worker is processing them.

use crate::{BatchId, FileId, Timestamp};
use sea_orm::entity::prelude::*;

/// The status of a file on its way into storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, DeriveActiveEnum)]
#[sea_orm(
    rs_type = "String",
    db_type = "String(StringLen::N(16))",
    rename_all = "snake_case"
)]
pub enum FileStatus {
    /// Bytes are still being received. The request that completes the upload changes it to `staged`. After a crash, the
    /// upload expires.
    Uploading,
    /// All bytes are durable in staging. A finalize job claims it. After a crash, the sweep pushes the job again.
    Staged,
    /// A worker holds the lease. A crash leaves an expired lease, which the next claim takes over.
    Finalizing,
    /// The object exists, and its `file.stored` event was committed with this status.
    Stored,
    /// Failed permanently, with `error_code` and `error_message`; no event was written. The bytes are kept until
    /// `retryable_until`, and a retry stages the file again.
    Failed,
    /// Deleted by its owner or on expiry. A separate job removes the object; the sweep repeats it until it is done.
    Deleted,
}

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "files")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: FileId,
    /// The owner of the token; `None` without tokens.
    pub owner: Option<String>,
    pub status: FileStatus,
    /// As sent by the client, including Unicode; never part of a path.
    pub original_filename: String,
    /// The name in lower case, for prefix searches.
    pub search_name: String,
    pub content_type: String,
    pub size_bytes: i64,
    /// SHA-256 of the stored bytes, lower-case hexadecimal; set by the commit that stores the file.
    pub sha256: Option<String>,
    /// SHA-256 declared by the client, checked before the file can be stored.
    pub declared_sha256: Option<String>,
    /// SHA-256 of the staged bytes computed as they were received, if they came in order; they need not be read again.
    pub staged_sha256: Option<String>,
    pub metadata: Json,
    pub batch_id: Option<BatchId>,
    /// Where the bytes are staged; `None` once they are in storage or gone. A failed file keeps them until
    /// `retryable_until`.
    pub staging_key: Option<String>,
    /// Reserved before the first byte is written to it, and never used for another file. Only a file whose object was
    /// replaced on purpose (`file_overwrite`) has given it up.
    pub storage_key: Option<String>,
    /// Finalize attempts that failed and were rescheduled.
    pub finalize_attempts: i32,
    /// Counted by releases before suspects were introduced; unused, and dropped by a later release.
    pub finalize_crashes: i32,
    /// Since when the file is suspected of having killed a worker: it runs alone until a run ends cleanly.
    pub suspect_since: Option<Timestamp>,
    /// Consecutive processes that died while running only this file.
    pub alone_deaths: i32,
    /// When the heartbeat of the process that ran it alone was first missed.
    pub owner_missed_at: Option<Timestamp>,
    /// When a lease on it last expired: its worker's last requests may be carried out later.
    pub lease_lost_at: Option<Timestamp>,
    /// When the first of the faults occurred that have prevented the file from being stored since; `workers.retry_for`
    /// counts from it.
    pub first_fault_at: Option<Timestamp>,
    /// Not to be finalized before this time.
    pub next_attempt_at: Option<Timestamp>,
    pub lease_owner: Option<String>,
    pub lease_expires_at: Option<Timestamp>,
    /// When a worker last claimed it, and which; kept when the lease is released.
    pub claimed_at: Option<Timestamp>,
    pub claimed_by: Option<String>,
    /// When its bytes were hashed and its object was complete, before the commit that stored it.
    pub landed_at: Option<Timestamp>,
    pub error_code: Option<String>,
    pub error_message: Option<String>,
    /// Until when a failed file keeps its staged bytes; `None` means that they are being removed, or gone.
    pub retryable_until: Option<Timestamp>,
    /// W3C trace context of the upload, passed on to the jobs and the webhook.
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
    /// A new row with its status, and all other fields empty.
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
