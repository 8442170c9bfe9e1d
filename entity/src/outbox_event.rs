//! `outbox_events`: what must be announced, written in the transaction that made it true.

use crate::{EventId, Timestamp};
use sea_orm::entity::prelude::*;
use uuid::Uuid;

/// Whether an event has reached everyone it concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, DeriveActiveEnum)]
#[sea_orm(
    rs_type = "String",
    db_type = "String(StringLen::N(16))",
    rename_all = "snake_case"
)]
pub enum EventStatus {
    /// At least one delivery is still due.
    Pending,
    /// Every delivery got its 2xx, or no endpoint wanted the event.
    Delivered,
    /// No delivery is due any more and at least one was given up.
    Failed,
}

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "outbox_events")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: EventId,
    pub event_type: String,
    pub aggregate_type: String,
    pub aggregate_id: Uuid,
    /// Unique together with `event_type`: the second fence against a doubled event.
    pub idempotency_key: String,
    pub payload: Json,
    pub status: EventStatus,
    /// Deliveries not yet delivered or failed; changed in the transaction that changes the delivery.
    pub pending_deliveries: i32,
    pub failed_deliveries: i32,
    pub traceparent: Option<String>,
    pub created_at: Timestamp,
    pub delivered_at: Option<Timestamp>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
