//! Claims on deliveries: which worker may attempt a delivery, and the recorded outcome.
//!
//! Many tasks claim and record concurrently; both are batched, up to 128 per transaction. A claim is a lease with a
//! unique owner, and only that owner can record the outcome: a worker that outlived its lease finds the delivery
//! claimed by another and changes nothing.
//!
//! A crash after a claim leaves an expired lease and no recorded attempt. The next claim takes over, and the receiver
//! may see the same `webhook-id` twice.

mod claim;
mod endpoints;
mod record;

use super::DeliverError;
use crate::{batcher::Batcher, clock::Clock, db::Database};
pub(super) use claim::{ClaimedDelivery, DeliveryClaim, claimable, unleased};
use entity::{DeliveryId, EventId, Timestamp, WebhookId, attempt};
pub(super) use record::RecordOutcome;
use sea_orm::DbErr;
use std::{sync::Arc, time::Duration};

/// What happens to a delivery after an attempt, or without one.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    /// The receiver has accepted it.
    Delivered,
    /// It will be retried.
    Retry { at: Timestamp, error: String },
    /// It has failed permanently.
    Failed { error: String },
    /// The receiver wants no further events: the delivery has failed, and the endpoint is disabled.
    Gone { error: String },
}

/// The outcome to be recorded for a claim.
#[derive(Clone, Debug)]
pub(super) struct AttemptRecord {
    pub(super) delivery_id: DeliveryId,
    pub(super) event_id: EventId,
    pub(super) webhook_id: WebhookId,
    pub(super) lease_owner: String,
    /// `None` if no request was made.
    pub(super) attempt: Option<attempt::Model>,
    pub(super) verdict: Verdict,
}

/// Claims and records deliveries in batches; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct DeliveryClaims {
    claims: Batcher<DeliveryId, DeliveryClaim, DbErr>,
    entries: Batcher<AttemptRecord, RecordOutcome, DbErr>,
}

impl DeliveryClaims {
    /// Starts two tasks, which end when the last clone is dropped.
    pub(super) fn start(db: &Database, clock: &Clock, worker: &str, lease: Duration) -> Self {
        let (claim_db, claim_clock) = (db.clone(), clock.clone());
        let worker: Arc<str> = worker.into();
        let (entry_db, entry_clock) = (db.clone(), clock.clone());
        Self {
            claims: Batcher::start(move |ids| {
                let (db, clock, worker) = (claim_db.clone(), claim_clock.clone(), worker.clone());
                Box::pin(claim::claim(db, clock, worker, lease, ids))
            }),
            entries: Batcher::start(move |entries| {
                Box::pin(record::record(
                    entry_db.clone(),
                    entry_clock.clone(),
                    entries,
                ))
            }),
        }
    }

    pub(super) async fn claim(&self, id: DeliveryId) -> Result<DeliveryClaim, DeliverError> {
        Ok(self.claims.run(Arc::new(id)).await?)
    }

    pub(super) async fn record(
        &self,
        entry: Arc<AttemptRecord>,
    ) -> Result<RecordOutcome, DeliverError> {
        Ok(self.entries.run(entry).await?)
    }
}
