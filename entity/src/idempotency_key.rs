//! `idempotency_keys`: the first response to each `Idempotency-Key`, kept for a day.

use crate::Timestamp;
use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "idempotency_keys")]
pub struct Model {
    /// SHA-256 of owner and key, lower-case hexadecimal, so keys of different owners never collide.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// SHA-256 over method, path, query and body; while the first request is running, the holder of the lock.
    pub fingerprint: Option<String>,
    /// `None` while the first request is running.
    pub status: Option<i32>,
    pub headers: Option<Json>,
    pub body: Option<Vec<u8>>,
    /// The first request is considered dead after this.
    pub locked_until: Option<Timestamp>,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    /// The owner; `None` without tokens, or for rows of an earlier version.
    pub owner: Option<String>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
