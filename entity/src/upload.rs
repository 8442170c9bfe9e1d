//! `uploads`: uploads in several requests, over any protocol.

use crate::{FileId, Timestamp, UploadId};
use sea_orm::entity::prelude::*;

/// How the bytes are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, DeriveActiveEnum)]
#[sea_orm(
    rs_type = "String",
    db_type = "String(StringLen::N(16))",
    rename_all = "snake_case"
)]
pub enum UploadKind {
    /// Numbered parts, in any order.
    Parts,
    /// At an offset: tus, or the IETF draft.
    Append,
    /// A tus partial upload, to be concatenated by a final one.
    Partial,
    /// A tus final upload: a list of partial ones.
    Final,
}

/// The status of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, DeriveActiveEnum)]
#[sea_orm(
    rs_type = "String",
    db_type = "String(StringLen::N(16))",
    rename_all = "snake_case"
)]
pub enum UploadStatus {
    /// No bytes yet.
    Init,
    /// Bytes are being received.
    InProgress,
    /// All bytes are durable; its file is staged.
    Complete,
    /// Its file failed before it was complete.
    Failed,
    /// Cancelled by the client.
    Aborted,
    /// Nothing was received for longer than `uploads.session_ttl`.
    Expired,
}

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "uploads")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: UploadId,
    pub file_id: FileId,
    pub owner: Option<String>,
    pub kind: UploadKind,
    pub status: UploadStatus,
    pub chunk_size_bytes: Option<i64>,
    /// `None` while tus defers the length.
    pub total_size_bytes: Option<i64>,
    pub total_parts: Option<i32>,
    pub completed_parts: i32,
    /// For appends also the offset: all bytes before it are durable.
    pub bytes_received: i64,
    /// The `Upload-Metadata` header as sent, to be returned.
    pub tus_metadata: Option<String>,
    /// The `Upload-Concat` header as sent, to be returned.
    pub tus_concat: Option<String>,
    /// State that staging needs to continue, such as the id of an S3 multipart upload.
    pub staging_state: Option<Json>,
    /// Where the segment starts that was last written to, in bytes: it ends at `bytes_received`, and the segments
    /// before it are in `upload_segments`. `None` before the first append, for parts, and for bytes staged by a version
    /// without segments.
    pub segment_start: Option<i64>,
    /// The fence of the writer that started this segment.
    pub segment_fence: Option<i64>,
    /// SHA-256 state after `bytes_received` bytes.
    pub hash_state: Option<Vec<u8>>,
    /// Raised by each writer that acquires the upload; a writer with an older number is fenced off.
    pub fence: i64,
    pub lease_owner: Option<String>,
    pub lease_expires_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub expires_at: Timestamp,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
