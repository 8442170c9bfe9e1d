//! `outbox_events`: events to be announced, written in the transaction that made them true.

use crate::{EventId, Timestamp};
use sea_orm::entity::prelude::*;
use uuid::Uuid;

/// Whether an event has reached all its endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, DeriveActiveEnum)]
#[sea_orm(
    rs_type = "String",
    db_type = "String(StringLen::N(16))",
    rename_all = "snake_case"
)]
pub enum EventStatus {
    /// At least one delivery is pending.
    Pending,
    /// Every delivery got a 2xx, or no endpoint subscribes to the event.
    Delivered,
    /// No delivery is pending, and at least one has failed.
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
    /// Unique together with `event_type`: a second safeguard against duplicate events.
    pub idempotency_key: String,
    pub payload: Json,
    pub status: EventStatus,
    /// Number of pending deliveries; changed in the transaction that changes the delivery.
    pub pending_deliveries: i32,
    pub failed_deliveries: i32,
    pub traceparent: Option<String>,
    pub created_at: Timestamp,
    pub delivered_at: Option<Timestamp>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
