//! `owner_reservations`: room in an owner's quota for bytes that are on their way and not counted yet.

use crate::Timestamp;
use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "owner_reservations")]
pub struct Model {
    /// One for each request that sends bytes.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub owner: String,
    pub bytes: i64,
    /// A process that died leaves a reservation that ends by itself.
    pub expires_at: Timestamp,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
