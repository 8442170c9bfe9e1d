//! `webhook_endpoints`: the receivers of events.

use crate::{Timestamp, WebhookId};
use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "webhook_endpoints")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: WebhookId,
    pub url: String,
    /// A JSON array of event types; empty means all.
    pub event_types: Json,
    pub description: String,
    pub active: bool,
    /// `whsec_…`, or sealed with the key from the configuration.
    pub secret: String,
    /// The secret before the last rotation; it also signs until it expires.
    pub previous_secret: Option<String>,
    pub previous_secret_expires_at: Option<Timestamp>,
    /// A JSON object of the additional headers: lower-case names, and values that are sealed like the secret.
    pub headers: Option<String>,
    /// Failed attempts since the last 2xx.
    pub consecutive_failures: i32,
    /// Why Landfall disabled the endpoint.
    pub disabled_reason: Option<String>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// The row is kept for its deliveries, but is no longer visible.
    pub deleted_at: Option<Timestamp>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
