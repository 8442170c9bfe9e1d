//! `sessions`: browsers that are signed in.

use crate::{Timestamp, TokenId};
use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "sessions")]
pub struct Model {
    /// SHA-256 of the cookie's value, lower-case hex; the value itself is kept in the browser alone.
    #[sea_orm(primary_key, auto_increment = false)]
    pub secret_sha256: String,
    /// Whose session it is: what the token may do, and whether it still may, is asked anew at each request.
    pub token_id: TokenId,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
