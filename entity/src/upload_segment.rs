//! `upload_segments`: segments of an upload to which nothing more is appended; the last one is named by `uploads`.

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
    /// The fence of the writer that began it; none of bytes that a version without segments staged.
    pub fence: Option<i64>,
    /// How many of its bytes count; the object may have more, which nobody reads.
    pub length_bytes: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
