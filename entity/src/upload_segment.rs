//! `upload_segments`: segments of an upload that are no longer appended to; `uploads` names the last one.

use crate::UploadId;
use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "upload_segments")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub upload_id: UploadId,
    /// Offset of its first byte within the upload, in bytes.
    #[sea_orm(primary_key, auto_increment = false)]
    pub start_byte: i64,
    /// The fence of the writer that started it; `None` for bytes staged by a version without segments.
    pub fence: Option<i64>,
    /// How many of its bytes count; the object may be longer, and the rest is ignored.
    pub length_bytes: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
