//! Which endpoints subscribe to which events.

use entity::{WebhookId, webhook_endpoint};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
};

/// An active endpoint and its subscribed event types.
#[derive(Clone, Debug)]
pub(super) struct Subscription {
    pub(super) webhook_id: WebhookId,
    /// Empty means all.
    event_types: Vec<String>,
}

impl Subscription {
    /// Returns every active endpoint, in the order of ids.
    pub(super) async fn all(connection: &impl ConnectionTrait) -> Result<Vec<Self>, DbErr> {
        let rows: Vec<(WebhookId, serde_json::Value)> = webhook_endpoint::Entity::find()
            .select_only()
            .column(webhook_endpoint::Column::Id)
            .column(webhook_endpoint::Column::EventTypes)
            .filter(webhook_endpoint::Column::Active.eq(true))
            .filter(webhook_endpoint::Column::DeletedAt.is_null())
            .order_by_asc(webhook_endpoint::Column::Id)
            .into_tuple()
            .all(connection)
            .await?;
        Ok(rows
            .into_iter()
            .map(|(webhook_id, event_types)| Self {
                webhook_id,
                // Stored values were validated; anything else counts as a subscription to all types.
                event_types: serde_json::from_value(event_types).unwrap_or_default(),
            })
            .collect())
    }

    /// Whether the endpoint subscribes to this type.
    pub(super) fn wants(&self, event_type: &str) -> bool {
        self.event_types.is_empty() || self.event_types.iter().any(|one| one == event_type)
    }
}
