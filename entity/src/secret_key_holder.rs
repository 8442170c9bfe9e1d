//! `secret_key_holders`: which processes can open webhook secrets with which keys.

use crate::Timestamp;
use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "secret_key_holders")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    /// The host of the process.
    pub host: String,
    /// Fingerprints of its keys, separated by commas; empty without a key.
    pub fingerprints: String,
    /// The last heartbeat of the process.
    pub seen_at: Timestamp,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
