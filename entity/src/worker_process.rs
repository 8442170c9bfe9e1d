//! `worker_processes`: the processes that finalize files, and their last heartbeats.

use crate::{FileId, Timestamp};
use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "worker_processes")]
pub struct Model {
    /// As in `files.lease_owner`; never reused.
    #[sea_orm(primary_key, auto_increment = false)]
    pub name: String,
    pub started_at: Timestamp,
    pub beat_at: Timestamp,
    /// The suspect file that the process is running alone, if any.
    pub alone_file: Option<FileId>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
