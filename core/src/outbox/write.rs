//! Writing an event, in the transaction that makes it true.

use super::{
    BatchComplete, EventType, FileDeleted, FileExpiring, FileStored, Subscription, WebhookTest,
};
use crate::dispatch::DueDelivery;
use entity::{
    DeliveryId, EventId, Timestamp, WebhookId, batch,
    delivery::{self, DeliveryStatus},
    file,
    outbox_event::{self, EventStatus},
};
use sea_orm::{ConnectionTrait, DbErr, EntityTrait, IntoActiveModel, sea_query::OnConflict};
use serde::Serialize;
use uuid::Uuid;

/// Delivery rows in one INSERT: SQLite binds at most 32,766 values (SQLite, «Limits»), and a row has 13.
const ROWS: usize = 1000;

/// An event that is to be written.
#[derive(Clone, Debug)]
pub struct NewEvent {
    event_type: EventType,
    aggregate_type: &'static str,
    aggregate_id: Uuid,
    idempotency_key: String,
    payload: Result<serde_json::Value, String>,
    traceparent: Option<String>,
    /// Only this endpoint, whatever it subscribed to and whether active or not.
    only: Option<WebhookId>,
}

impl NewEvent {
    /// `file.stored`; at most one per file.
    #[must_use]
    pub fn file_stored(payload: FileStored, file: &file::Model) -> Self {
        Self::of_file(EventType::FileStored, &payload, file)
    }

    /// `file.expiring`; at most one per file.
    #[must_use]
    pub fn file_expiring(payload: FileExpiring, file: &file::Model) -> Self {
        Self::of_file(EventType::FileExpiring, &payload, file)
    }

    /// `file.deleted`; at most one per file.
    #[must_use]
    pub fn file_deleted(payload: FileDeleted, file: &file::Model) -> Self {
        Self::of_file(EventType::FileDeleted, &payload, file)
    }

    /// `batch.complete`; at most one per batch.
    #[must_use]
    pub fn batch_complete(payload: BatchComplete, batch: &batch::Model) -> Self {
        Self::new(EventType::BatchComplete, "Batch", batch.id.0, &payload)
    }

    /// `webhook.test`, for this endpoint alone; as many as are asked for.
    #[must_use]
    pub fn webhook_test(webhook: WebhookId) -> Self {
        let payload = WebhookTest::of(webhook);
        Self {
            idempotency_key: format!("Webhook:{webhook}:{}", EventId::generate()),
            only: Some(webhook),
            ..Self::new(EventType::WebhookTest, "Webhook", webhook.0, &payload)
        }
    }

    fn of_file(event_type: EventType, payload: &impl Serialize, file: &file::Model) -> Self {
        Self {
            traceparent: file.traceparent.clone(),
            ..Self::new(event_type, "UploadFile", file.id.0, payload)
        }
    }

    fn new(
        event_type: EventType,
        aggregate_type: &'static str,
        aggregate_id: Uuid,
        payload: &impl Serialize,
    ) -> Self {
        Self {
            event_type,
            aggregate_type,
            aggregate_id,
            idempotency_key: format!("{aggregate_type}:{aggregate_id}"),
            payload: serde_json::to_value(payload).map_err(|error| error.to_string()),
            traceparent: None,
            only: None,
        }
    }
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub event_id: EventId,
    /// For [`crate::dispatch::Dispatch::deliver`], once the transaction is committed.
    pub due: Vec<DueDelivery>,
}

/// Why an event was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Nothing was written, and the transaction is still good. To store a file twice is a fault of the caller's.
    #[error("there is already a {event_type} event with the key {idempotency_key}")]
    Doubled {
        event_type: EventType,
        idempotency_key: String,
    },
    #[error("the payload of {event_type} cannot be written as JSON: {reason}")]
    Payload {
        event_type: EventType,
        reason: String,
    },
    #[error("writing an event failed in the database")]
    Database(#[from] DbErr),
}

/// Writes the event and one delivery for each active endpoint that wants it, due at once; without any, the event
/// is `delivered` from the start. Three statements (a further one per thousand endpoints), no waiting on anybody.
///
/// A crash after the commit leaves deliveries `pending` and due, which the sweep pushes.
///
/// # Errors
/// [`WriteError`]; on [`WriteError::Database`] the transaction must be rolled back.
pub async fn write(
    transaction: &impl ConnectionTrait,
    now: Timestamp,
    event: NewEvent,
) -> Result<Written, WriteError> {
    let payload = event.payload.map_err(|reason| WriteError::Payload {
        event_type: event.event_type,
        reason,
    })?;
    let endpoints = match event.only {
        Some(webhook) => vec![webhook],
        None => Subscription::all(transaction)
            .await?
            .into_iter()
            .filter(|one| one.wants(event.event_type.as_str()))
            .map(|one| one.webhook_id)
            .collect(),
    };
    let event_id = EventId::generate();
    let pending = i32::try_from(endpoints.len()).unwrap_or(i32::MAX);
    let row = outbox_event::Model {
        id: event_id,
        event_type: event.event_type.as_str().to_owned(),
        aggregate_type: event.aggregate_type.to_owned(),
        aggregate_id: event.aggregate_id,
        idempotency_key: event.idempotency_key.clone(),
        payload,
        status: if pending == 0 {
            EventStatus::Delivered
        } else {
            EventStatus::Pending
        },
        pending_deliveries: pending,
        failed_deliveries: 0,
        traceparent: event.traceparent,
        created_at: now,
        delivered_at: (pending == 0).then_some(now),
    };
    // Not an error of the database's: on PostgreSQL that would end the caller's transaction.
    let written = outbox_event::Entity::insert(row.into_active_model())
        .on_conflict(
            OnConflict::columns([
                outbox_event::Column::EventType,
                outbox_event::Column::IdempotencyKey,
            ])
            .do_nothing()
            .to_owned(),
        )
        .exec_without_returning(transaction)
        .await?;
    if written == 0 {
        return Err(WriteError::Doubled {
            event_type: event.event_type,
            idempotency_key: event.idempotency_key,
        });
    }
    let due = add_deliveries(transaction, now, &[(event_id, endpoints)]).await?;
    Ok(Written { event_id, due })
}

/// Adds pending deliveries, due at once; the counters of the events are the caller's to keep.
pub(super) async fn add_deliveries(
    transaction: &impl ConnectionTrait,
    now: Timestamp,
    wanted: &[(EventId, Vec<WebhookId>)],
) -> Result<Vec<DueDelivery>, DbErr> {
    let rows: Vec<delivery::Model> = wanted
        .iter()
        .flat_map(|(event, endpoints)| endpoints.iter().map(|webhook| (*event, *webhook)))
        .map(|(event_id, webhook_id)| fresh_delivery(event_id, webhook_id, now))
        .collect();
    for rows in rows.chunks(ROWS) {
        delivery::Entity::insert_many(rows.iter().cloned().map(IntoActiveModel::into_active_model))
            .exec_without_returning(transaction)
            .await?;
    }
    Ok(rows
        .into_iter()
        .map(|row| DueDelivery {
            id: row.id,
            webhook_id: row.webhook_id,
            at: None,
        })
        .collect())
}

fn fresh_delivery(event_id: EventId, webhook_id: WebhookId, now: Timestamp) -> delivery::Model {
    delivery::Model {
        id: DeliveryId::generate(),
        event_id,
        webhook_id,
        status: DeliveryStatus::Pending,
        attempt_count: 0,
        attempts_this_round: 0,
        next_attempt_at: Some(now),
        lease_owner: None,
        lease_expires_at: None,
        delivered_at: None,
        last_error: None,
        created_at: now,
        updated_at: now,
    }
}
