//! `storage_key_owners`: which file owns a storage key that files of the same name share (`file_overwrite`).

use crate::{FileId, Timestamp};
use sea_orm::entity::prelude::*;

/// What may be happening to the object at a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, DeriveActiveEnum)]
#[sea_orm(
    rs_type = "String",
    db_type = "String(StringLen::N(16))",
    rename_all = "snake_case"
)]
pub enum KeyState {
    /// Every request that changes the object was answered.
    Idle,
    /// The owner's transfer is in progress. A crash leaves this state.
    Writing,
    /// A purge of the owner is in progress until `held_until`. A crash leaves this state.
    Deleting,
}

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "storage_key_owners")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub key: String,
    pub file_id: FileId,
    pub state: KeyState,
    pub held_until: Option<Timestamp>,
    /// When it was last known that a request was left unanswered.
    pub uncertain_at: Option<Timestamp>,
    pub updated_at: Timestamp,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
