//! `tokens`: bearer tokens and what they allow.

use crate::{Timestamp, TokenId};
use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "tokens")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: TokenId,
    pub owner: String,
    /// A JSON array of `upload`, `read`, `admin`.
    pub scopes: Json,
    /// SHA-256 of the whole token, lower-case hexadecimal; the token itself is shown once and not stored.
    pub token_sha256: String,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
    pub last_used_at: Option<Timestamp>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
