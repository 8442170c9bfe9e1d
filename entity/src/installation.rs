//! `installation`: the identity of this installation, in one row.

use crate::Timestamp;
use sea_orm::entity::prelude::*;

/// The only value of [`Model::singleton`].
pub const SINGLETON: i32 = 1;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "installation")]
pub struct Model {
    /// Always [`SINGLETON`], so that the table holds one row.
    #[sea_orm(primary_key, auto_increment = false)]
    pub singleton: i32,
    pub id: Uuid,
    pub created_at: Timestamp,
    /// When the marker was first written to staging; null until then.
    pub staging_marked_at: Option<Timestamp>,
    /// When the marker was first written to storage; null until then.
    pub storage_marked_at: Option<Timestamp>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
