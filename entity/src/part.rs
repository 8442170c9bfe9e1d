//! `parts`: the parts of an upload session that are durable or being written.

use crate::{Timestamp, UploadId};
use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "parts")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub upload_id: UploadId,
    /// From 1.
    #[sea_orm(primary_key, auto_increment = false)]
    pub part_number: i32,
    pub size_bytes: i64,
    /// `None` while the part is being written under a lease.
    pub sha256: Option<String>,
    /// The attempt that staged the bytes, which names their segment; `None` for bytes staged by a version without
    /// segments.
    pub attempt: Option<Uuid>,
    /// State that staging needs for it, such as an S3 ETag.
    pub staging_state: Option<Json>,
    pub lease_owner: Option<String>,
    pub lease_expires_at: Option<Timestamp>,
    pub created_at: Timestamp,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
