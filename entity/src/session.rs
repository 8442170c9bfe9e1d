//! `sessions`: signed-in browsers.

use crate::{Timestamp, TokenId};
use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "sessions")]
pub struct Model {
    /// SHA-256 of the cookie's value, lower-case hexadecimal; only the browser has the value itself.
    #[sea_orm(primary_key, auto_increment = false)]
    pub secret_sha256: String,
    /// The token of the session. What it allows, and whether it is still valid, is checked at each request.
    pub token_id: TokenId,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
