//! `cleanup_candidates`: bytes that no row referred to when they were listed, and since when.

use crate::Timestamp;
use sea_orm::entity::prelude::*;

/// Where a candidate was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "String", db_type = "String(StringLen::N(16))")]
pub enum Place {
    /// A staging key.
    #[sea_orm(string_value = "staging")]
    Staging,
    /// A temporary file, an open multipart upload, or the object of a startup check.
    #[sea_orm(string_value = "unfinished")]
    Unfinished,
    /// An object without a row that `audit --repair` has set aside, by its current key.
    #[sea_orm(string_value = "orphaned")]
    Orphaned,
}

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "cleanup_candidates")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub place: Place,
    #[sea_orm(primary_key, auto_increment = false)]
    pub name: String,
    pub first_seen_at: Timestamp,
    /// By the last sweep that went through the complete listing.
    pub last_seen_at: Timestamp,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
