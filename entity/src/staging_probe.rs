//! `staging_probes`: a file that each process puts into its staging, for the other processes to find.

use crate::Timestamp;
use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "staging_probes")]
pub struct Model {
    /// Also the file's name.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub host: String,
    /// `fs` or `s3`.
    pub backend: String,
    /// The path as its process knows it, for error messages.
    pub path: String,
    /// The last heartbeat of the process.
    pub beat_at: Timestamp,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
