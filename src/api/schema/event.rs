//! Outbox events, their deliveries and attempts.

use chrono::{DateTime, Utc};
use entity::{attempt, delivery, outbox_event};
use landfall_core::outbox::{DeliveryDetail, EventDetail};
use poem_openapi::{Enum, Object};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

macro_rules! status {
    ($(#[$doc:meta])* $name:ident, $row:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Enum)]
        #[serde(rename_all = "snake_case")]
        #[oai(rename_all = "snake_case")]
        pub enum $name {
            Pending,
            Delivered,
            Failed,
        }

        impl From<$row> for $name {
            fn from(status: $row) -> Self {
                match status {
                    <$row>::Pending => Self::Pending,
                    <$row>::Delivered => Self::Delivered,
                    <$row>::Failed => Self::Failed,
                }
            }
        }

        impl From<$name> for $row {
            fn from(status: $name) -> Self {
                match status {
                    $name::Pending => Self::Pending,
                    $name::Delivered => Self::Delivered,
                    $name::Failed => Self::Failed,
                }
            }
        }
    };
}

status!(
    /// Whether all matching endpoints have received the event.
    EventStatus,
    outbox_event::EventStatus
);
status!(
    /// Whether the endpoint has received the event.
    DeliveryStatus,
    delivery::DeliveryStatus
);

/// An outbox event.
#[derive(Clone, Debug, Serialize, Object)]
pub struct Event {
    /// Also the `webhook-id` of all its deliveries.
    pub id: Uuid,
    pub event_type: String,
    pub aggregate_type: String,
    /// The id of the file, batch or webhook that the event is about.
    pub aggregate_id: Uuid,
    /// Unique together with `event_type`.
    pub idempotency_key: String,
    pub payload: Value,
    pub status: EventStatus,
    pub created_at: DateTime<Utc>,
    #[oai(nullable)]
    pub delivered_at: Option<DateTime<Utc>>,
    /// Without their attempts in lists.
    pub deliveries: Vec<Delivery>,
}

/// The delivery of one event to one endpoint.
#[derive(Clone, Debug, Serialize, Object)]
pub struct Delivery {
    pub id: Uuid,
    pub event_id: Uuid,
    pub webhook_id: Uuid,
    pub status: DeliveryStatus,
    pub attempt_count: i32,
    /// When the next attempt is due; null if none is scheduled.
    #[oai(nullable)]
    pub next_attempt_at: Option<DateTime<Utc>>,
    #[oai(nullable)]
    pub delivered_at: Option<DateTime<Utc>>,
    #[oai(nullable)]
    pub last_error: Option<String>,
    /// Oldest first.
    pub attempts: Vec<Attempt>,
}

/// One attempt of a delivery: the request and its response.
#[derive(Clone, Debug, Serialize, Object)]
pub struct Attempt {
    pub at: DateTime<Utc>,
    #[oai(nullable)]
    pub status_code: Option<i32>,
    pub duration_ms: i64,
    #[oai(nullable)]
    pub error: Option<String>,
    /// The first 4 KiB of the response.
    #[oai(nullable)]
    pub response_body: Option<String>,
}

/// Which endpoint to redeliver an event to.
#[derive(Clone, Debug, Default, Deserialize, Object)]
#[serde(deny_unknown_fields)]
#[oai(deny_unknown_fields)]
pub struct Redelivery {
    /// If absent: all matching endpoints.
    pub webhook_id: Option<Uuid>,
}

/// The number of deliveries that a replay scheduled.
#[derive(Clone, Copy, Debug, Serialize, Object)]
pub struct Replayed {
    pub count: u64,
}

impl Event {
    /// An event and its deliveries.
    #[must_use]
    pub fn from_row(row: outbox_event::Model, deliveries: Vec<Delivery>) -> Self {
        Self {
            id: row.id.0,
            event_type: row.event_type,
            aggregate_type: row.aggregate_type,
            aggregate_id: row.aggregate_id,
            idempotency_key: row.idempotency_key,
            payload: row.payload,
            status: row.status.into(),
            created_at: row.created_at,
            delivered_at: row.delivered_at,
            deliveries,
        }
    }
}

impl From<EventDetail> for Event {
    fn from(detail: EventDetail) -> Self {
        let deliveries = detail.deliveries.into_iter().map(Delivery::from).collect();
        Self::from_row(detail.event, deliveries)
    }
}

impl Delivery {
    /// A delivery and its attempts.
    #[must_use]
    pub fn from_row(row: delivery::Model, attempts: Vec<Attempt>) -> Self {
        let pending = row.status == delivery::DeliveryStatus::Pending;
        Self {
            id: row.id.0,
            event_id: row.event_id.0,
            webhook_id: row.webhook_id.0,
            status: row.status.into(),
            attempt_count: row.attempt_count,
            next_attempt_at: row.next_attempt_at.filter(|_| pending),
            delivered_at: row.delivered_at,
            last_error: row.last_error,
            attempts,
        }
    }
}

impl From<DeliveryDetail> for Delivery {
    fn from(detail: DeliveryDetail) -> Self {
        let attempts = detail.attempts.into_iter().map(Attempt::from).collect();
        Self::from_row(detail.delivery, attempts)
    }
}

impl From<attempt::Model> for Attempt {
    fn from(row: attempt::Model) -> Self {
        Self {
            at: row.at,
            status_code: row.status_code,
            duration_ms: row.duration_ms,
            error: row.error,
            response_body: row.response_body,
        }
    }
}
