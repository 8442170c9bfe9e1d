//! `deliveries`: one event to one endpoint.

use crate::{DeliveryId, EventId, Timestamp, WebhookId};
use sea_orm::entity::prelude::*;

/// Whether the endpoint has received the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, DeriveActiveEnum)]
#[sea_orm(
    rs_type = "String",
    db_type = "String(StringLen::N(16))",
    rename_all = "snake_case"
)]
pub enum DeliveryStatus {
    /// Due at `next_attempt_at`, or being attempted under a lease. A crash leaves an expired lease.
    Pending,
    /// The endpoint answered 2xx.
    Delivered,
    /// Failed permanently, with `last_error`; redelivery makes it pending again.
    Failed,
}

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "deliveries")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: DeliveryId,
    pub event_id: EventId,
    pub webhook_id: WebhookId,
    pub status: DeliveryStatus,
    /// Number of attempts made and recorded.
    pub attempt_count: i32,
    /// Attempts since the delivery last became pending, limited by `webhooks.max_attempts`.
    pub attempts_this_round: i32,
    pub next_attempt_at: Option<Timestamp>,
    pub lease_owner: Option<String>,
    pub lease_expires_at: Option<Timestamp>,
    pub delivered_at: Option<Timestamp>,
    pub last_error: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
