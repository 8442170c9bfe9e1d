//! `owner_usage`: how many bytes each owner has stored and staged, as the sum of several counters.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "owner_usage")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub owner: String,
    /// Which of the owner's counters: with a single one, all of the owner's uploads would wait for its lock.
    #[sea_orm(primary_key, auto_increment = false)]
    pub shard: i32,
    /// A single counter may be negative; the sum is not.
    pub bytes: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
