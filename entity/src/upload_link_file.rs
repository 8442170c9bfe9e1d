//! `upload_link_files`: which files and uploads an upload link created. An upload has the id of its file.

use crate::{FileId, UploadLinkId};
use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "upload_link_files")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub file_id: FileId,
    pub link_id: UploadLinkId,
    /// A partial tus upload, which has no file of its own and does not count as one.
    pub is_partial: bool,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
