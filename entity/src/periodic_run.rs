//! `periodic_runs`: when each periodic job last ran, and its report.

use crate::Timestamp;
use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "periodic_runs")]
pub struct Model {
    /// `sweep` or `audit`.
    #[sea_orm(primary_key, auto_increment = false)]
    pub name: String,
    pub started_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    pub report: Option<Json>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
