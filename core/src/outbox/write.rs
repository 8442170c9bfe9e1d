//! Writing events, in the transaction that makes them true.

use super::{
    BatchComplete, EventType, FileDeleted, FileExpiring, FileStored, Subscription, WebhookTest,
};
use crate::enqueue::DueDelivery;
use entity::{
    DeliveryId, EventId, Timestamp, WebhookId, batch,
    delivery::{self, DeliveryStatus},
    file,
    outbox_event::{self, EventStatus},
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, IntoActiveModel, QueryFilter, QuerySelect,
    sea_query::OnConflict,
};
use serde::Serialize;
use std::collections::HashSet;
use uuid::Uuid;

/// Rows per INSERT. SQLite binds at most 32,766 values (SQLite, "Limits"), and no row here has more than 13.
const MAX_ROWS_PER_INSERT: usize = 1000;

/// An event to be written.
#[derive(Clone, Debug)]
pub struct NewEvent {
    event_type: EventType,
    aggregate_type: &'static str,
    aggregate_id: Uuid,
    idempotency_key: String,
    payload: Result<serde_json::Value, String>,
    traceparent: Option<String>,
    /// Deliver to this endpoint only, whatever its subscription and even if it is disabled.
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

    /// `batch.complete`; at most one each time the batch becomes complete.
    #[must_use]
    pub fn batch_complete(payload: BatchComplete, batch: &batch::Model) -> Self {
        let mut event = Self::new(EventType::BatchComplete, "Batch", batch.id.0, &payload);
        if batch.reopened_count > 0 {
            event.idempotency_key = format!("{}:{}", event.idempotency_key, batch.reopened_count);
        }
        event
    }

    /// `webhook.test`, for this endpoint only; any number of times.
    #[must_use]
    pub fn webhook_test(webhook: WebhookId) -> Self {
        let payload = WebhookTest::new(webhook);
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

    fn row(self, endpoints: usize, now: Timestamp) -> Result<outbox_event::Model, WriteError> {
        let event_type = self.event_type;
        let payload = self
            .payload
            .map_err(|reason| WriteError::Payload { event_type, reason })?;
        let pending = i32::try_from(endpoints).unwrap_or(i32::MAX);
        Ok(outbox_event::Model {
            id: EventId::generate(),
            event_type: event_type.as_str().to_owned(),
            aggregate_type: self.aggregate_type.to_owned(),
            aggregate_id: self.aggregate_id,
            idempotency_key: self.idempotency_key,
            payload,
            status: if pending == 0 {
                EventStatus::Delivered
            } else {
                EventStatus::Pending
            },
            pending_deliveries: pending,
            failed_deliveries: 0,
            traceparent: self.traceparent,
            created_at: now,
            delivered_at: (pending == 0).then_some(now),
        })
    }
}

/// A written event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenEvent {
    pub event_id: EventId,
    /// Must be passed to [`crate::enqueue::JobSink::deliver`] once the transaction is committed.
    pub due: Vec<DueDelivery>,
}

/// Why an event was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Nothing was written, and the transaction can continue. Storing a file twice is an error of the caller.
    #[error("there is already a {event_type} event with the key {idempotency_key}")]
    Doubled {
        event_type: String,
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

/// Writes the event and one delivery, due at once, for each active endpoint that subscribes to it; without any, the
/// event is `delivered` from the start. Takes three statements, plus one per thousand endpoints, and waits for no
/// locks.
///
/// A crash after the commit leaves deliveries `pending` and due, which the sweep pushes.
///
/// # Errors
/// [`WriteError`]; on [`WriteError::Database`] the transaction must be rolled back.
pub async fn write(
    transaction: &impl ConnectionTrait,
    now: Timestamp,
    event: NewEvent,
) -> Result<WrittenEvent, WriteError> {
    let mut written = write_all(transaction, now, vec![event]).await?;
    // There is one per event, or an error.
    Ok(written.remove(0))
}

/// [`write()`] for several events, with the same number of statements; the results are in their order.
///
/// # Errors
/// As [`write()`], for the first event that cannot be written. Other events may have been written to the transaction by
/// then, which must be rolled back.
pub(crate) async fn write_all(
    transaction: &impl ConnectionTrait,
    now: Timestamp,
    events: Vec<NewEvent>,
) -> Result<Vec<WrittenEvent>, WriteError> {
    let subscriptions = match events.iter().all(|event| event.only.is_some()) {
        true => Vec::new(),
        false => Subscription::all(transaction).await?,
    };
    let mut rows = Vec::with_capacity(events.len());
    let mut wanted = Vec::with_capacity(events.len());
    for event in events {
        let endpoints: Vec<WebhookId> = match event.only {
            Some(webhook) => vec![webhook],
            None => subscriptions
                .iter()
                .filter(|one| one.wants(event.event_type.as_str()))
                .map(|one| one.webhook_id)
                .collect(),
        };
        let row = event.row(endpoints.len(), now)?;
        wanted.push((row.id, endpoints));
        rows.push(row);
    }
    insert(transaction, rows).await?;
    let mut due = add_deliveries(transaction, now, &wanted).await?.into_iter();
    Ok(wanted
        .into_iter()
        .map(|(event_id, endpoints)| WrittenEvent {
            event_id,
            due: due.by_ref().take(endpoints.len()).collect(),
        })
        .collect())
}

async fn insert(
    transaction: &impl ConnectionTrait,
    rows: Vec<outbox_event::Model>,
) -> Result<(), WriteError> {
    for rows in rows.chunks(MAX_ROWS_PER_INSERT) {
        // Not reported as a database error, which would end the caller's transaction on PostgreSQL.
        let written = outbox_event::Entity::insert_many(
            rows.iter().cloned().map(IntoActiveModel::into_active_model),
        )
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
        if usize::try_from(written).ok() != Some(rows.len()) {
            return Err(find_existing(transaction, rows).await?);
        }
    }
    Ok(())
}

/// Returns which of the rows existed before.
async fn find_existing(
    transaction: &impl ConnectionTrait,
    rows: &[outbox_event::Model],
) -> Result<WriteError, DbErr> {
    let written: HashSet<EventId> = outbox_event::Entity::find()
        .select_only()
        .column(outbox_event::Column::Id)
        .filter(outbox_event::Column::Id.is_in(rows.iter().map(|row| row.id)))
        .into_tuple()
        .all(transaction)
        .await?
        .into_iter()
        .collect();
    let missing = rows.iter().find(|row| !written.contains(&row.id));
    Ok(missing.map_or_else(
        || WriteError::Database(DbErr::RecordNotInserted),
        |row| WriteError::Doubled {
            event_type: row.event_type.clone(),
            idempotency_key: row.idempotency_key.clone(),
        },
    ))
}

/// Adds pending deliveries, due at once. The caller must update the counters of the events.
pub(super) async fn add_deliveries(
    transaction: &impl ConnectionTrait,
    now: Timestamp,
    wanted: &[(EventId, Vec<WebhookId>)],
) -> Result<Vec<DueDelivery>, DbErr> {
    let rows: Vec<delivery::Model> = wanted
        .iter()
        .flat_map(|(event, endpoints)| endpoints.iter().map(|webhook| (*event, *webhook)))
        .map(|(event_id, webhook_id)| new_delivery(event_id, webhook_id, now))
        .collect();
    for rows in rows.chunks(MAX_ROWS_PER_INSERT) {
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

fn new_delivery(event_id: EventId, webhook_id: WebhookId, now: Timestamp) -> delivery::Model {
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
