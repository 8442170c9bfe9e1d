//! Deliveries: claimed under a lease, signed, posted, recorded.
//!
//! Owns the path of a delivery to its receiver: which addresses may be reached ([`EgressPolicy`]), how the request is
//! made, when it is retried, what is recorded. It knows no queue: a worker calls [`Deliverer::deliver`] with an id, any
//! number of times; a delivery that is not due, leased by another worker, or done is left alone.
//!
//! **Architecture invariant.** Only the database decides whether a delivery is attempted: there is no request without a
//! claim, and the outcome of a request counts only if the claim is still valid when it is recorded.

mod backoff;
mod claims;
mod client;
mod connector;
mod due;
mod egress_policy;
mod proxy;
mod request;

use crate::{
    batcher::BatchError,
    clock::Clock,
    config::{Config, WebhooksConfig},
    db::{self, Database},
    trace_context,
    webhooks::sealing::Sealing,
};
use backoff::Backoff;
use claims::{AttemptRecord, ClaimedDelivery, DeliveryClaim, DeliveryClaims, Verdict};
pub use client::MAX_RESPONSE_BODY_LEN;
use client::{PostError, WebhookClient, WebhookResponse, chain};
pub(crate) use connector::{Connector, connector};
pub(crate) use due::fail_endpoint_deliveries;
pub use due::{DueCursor, DuePage, due, fail_orphaned};
pub use egress_policy::{EgressPolicy, ForbiddenAddress};
use entity::{AttemptId, DeliveryId, Timestamp, WebhookId, attempt};
use request::RequestError;
use sea_orm::DbErr;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tracing::{Instrument, Span, field::Empty};

/// By how much a lease exceeds the request timeout: the time to record the outcome.
const RECORD_TIMEOUT: Duration = Duration::from_secs(5);

/// Delay before recording is retried when the database could not take it.
const RECORD_RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// Why a delivery could not be worked on. It is unchanged, and the sweep will find it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DeliverError {
    #[error("claiming or recording deliveries failed in the database")]
    Database(#[source] Arc<DbErr>),
    #[error("the database took longer than {0:?} for a batch of deliveries")]
    Stalled(Duration),
    #[error("a batch of deliveries panicked")]
    Panicked,
    #[error("the task that claims and records deliveries has ended")]
    Ended,
}

impl From<BatchError<DbErr>> for DeliverError {
    fn from(error: BatchError<DbErr>) -> Self {
        match error {
            BatchError::Failed(error) => Self::Database(error),
            BatchError::Stalled(timeout) => Self::Stalled(timeout),
            BatchError::Panicked => Self::Panicked,
            BatchError::Ended => Self::Ended,
        }
    }
}

impl DeliverError {
    /// Whether it may succeed a moment later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Database(error) => db::is_transient(error),
            Self::Stalled(_) => true,
            Self::Panicked | Self::Ended => false,
        }
    }
}

/// The outcome of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// The receiver answered 2xx.
    Delivered,
    /// Due at that time: it failed and will be retried, is not due yet, or is leased by another worker until then.
    Later(Timestamp),
    /// It has failed permanently; the delivery says why.
    Failed,
    /// Already done, deleted, or taken over by another worker: there is nothing to do.
    Nothing,
}

/// The result of [`Deliverer::deliver`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryReport {
    pub outcome: DeliveryOutcome,
    /// The endpoint; `None` if the delivery was not attempted.
    pub webhook_id: Option<WebhookId>,
    /// Consecutive failures of the endpoint; `None` if the delivery was not attempted.
    pub consecutive_failures: Option<u32>,
}

impl DeliveryReport {
    fn not_attempted(outcome: DeliveryOutcome) -> Self {
        Self {
            outcome,
            webhook_id: None,
            consecutive_failures: None,
        }
    }
}

/// Makes deliveries; cheap to clone, one per process.
#[derive(Clone, Debug)]
pub struct Deliverer {
    clock: Clock,
    claims: DeliveryClaims,
    client: WebhookClient,
    backoff: Backoff,
    sealing: Sealing,
    max_attempts: u32,
    lease: Duration,
}

impl Deliverer {
    /// Must be called within a Tokio runtime, because it starts two tasks. `worker` identifies this process in leases.
    #[must_use]
    pub fn new(config: &Config, db: &Database, clock: &Clock, worker: &str) -> Self {
        Self::with(&config.webhooks, config.workers.lease, db, clock, worker)
    }

    /// Like [`Self::new`], from individual settings; `lease` is the minimum duration of a claim.
    #[must_use]
    pub fn with(
        webhooks: &WebhooksConfig,
        lease: Duration,
        db: &Database,
        clock: &Clock,
        worker: &str,
    ) -> Self {
        let lease = lease.max(webhooks.timeout + RECORD_TIMEOUT);
        Self {
            clock: clock.clone(),
            claims: DeliveryClaims::start(db, clock, worker, lease),
            client: WebhookClient::new(webhooks),
            backoff: Backoff::new(webhooks),
            sealing: webhooks.sealing.clone(),
            max_attempts: webhooks.max_attempts,
            lease,
        }
    }

    /// Attempts a delivery once, if it is due and not leased. Takes up to `webhooks.timeout` plus two commits.
    ///
    /// # Errors
    /// [`DeliverError`] when the database failed. A failure of the receiver is an outcome, not an error.
    pub async fn deliver(&self, id: DeliveryId) -> Result<DeliveryReport, DeliverError> {
        let claimed = match self.claims.claim(id).await? {
            DeliveryClaim::Claimed(claimed) => claimed,
            DeliveryClaim::Later(at) => {
                return Ok(DeliveryReport::not_attempted(DeliveryOutcome::Later(at)));
            }
            DeliveryClaim::Nothing => {
                return Ok(DeliveryReport::not_attempted(DeliveryOutcome::Nothing));
            }
        };
        crate::failpoint!("deliver.claimed");
        let leased_until = Instant::now() + self.lease;
        let entry = match self.refusal(&claimed) {
            Some(error) => entry(&claimed, None, Verdict::Failed { error }),
            None => {
                let event = &claimed.event;
                let span =
                    tracing::info_span!("attempt", event.id = %event.id, http.status = Empty);
                trace_context::follow(&span, event.traceparent.as_deref());
                self.attempt(&claimed).instrument(span).await
            }
        };
        crate::failpoint!("deliver.sent");
        let outcome = match &entry.verdict {
            Verdict::Delivered => DeliveryOutcome::Delivered,
            Verdict::Retry { at, .. } => DeliveryOutcome::Later(*at),
            Verdict::Failed { .. } | Verdict::Gone { .. } => DeliveryOutcome::Failed,
        };
        let webhook_id = entry.webhook_id;
        let recorded = self.record(Arc::new(entry), leased_until).await?;
        crate::failpoint!("deliver.recorded");
        Ok(DeliveryReport {
            outcome: if recorded.kept {
                outcome
            } else {
                DeliveryOutcome::Nothing
            },
            webhook_id: Some(webhook_id),
            consecutive_failures: Some(recorded.consecutive_failures),
        })
    }

    /// Returns why no request may be made.
    fn refusal(&self, claimed: &ClaimedDelivery) -> Option<String> {
        let made = u32::try_from(claimed.delivery.attempts_this_round).unwrap_or(0);
        match &claimed.endpoint {
            None => Some("the endpoint is gone".to_owned()),
            Some(endpoint) if endpoint.deleted_at.is_some() => {
                Some(due::ENDPOINT_DELETED.to_owned())
            }
            // A test event is sent even to a disabled endpoint: this is how its owner finds out whether it works again.
            Some(endpoint) if !endpoint.active && !request::is_test(&claimed.event) => {
                Some(match &endpoint.disabled_reason {
                    Some(reason) => format!("the endpoint is switched off: {reason}"),
                    None => "the endpoint is switched off".to_owned(),
                })
            }
            Some(_) if made >= self.max_attempts => Some(format!("failed after {made} attempts")),
            Some(_) => None,
        }
    }

    async fn attempt(&self, claimed: &ClaimedDelivery) -> AttemptRecord {
        let Some(endpoint) = &claimed.endpoint else {
            let error = "the endpoint is gone".to_owned();
            return entry(claimed, None, Verdict::Failed { error });
        };
        let at = self.clock.now();
        let request = match request::build(&claimed.event, endpoint, &self.sealing, at) {
            Ok(request) => request,
            // Another process has the key, or this one will soon.
            Err(error @ RequestError::Sealed(_)) => {
                let at = self.clock.after(self.backoff.delay(1));
                let error = chain(&error);
                return entry(claimed, None, Verdict::Retry { at, error });
            }
            Err(error) => {
                let error = chain(&error);
                return entry(claimed, None, Verdict::Failed { error });
            }
        };
        let started = Instant::now();
        let answer = self
            .client
            .post(&endpoint.url, request.headers, request.body)
            .await;
        let duration_ms = i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
        if let Ok(answer) = &answer {
            Span::current().record("http.status", i64::from(answer.status));
        }
        let verdict = self.judge(claimed, &answer);
        let attempt = attempt::Model {
            id: AttemptId::generate(),
            delivery_id: claimed.delivery.id,
            at,
            status_code: answer.as_ref().ok().map(|answer| i32::from(answer.status)),
            duration_ms,
            error: verdict.reason().map(str::to_owned),
            response_body: answer.ok().and_then(|answer| answer.body),
        };
        entry(claimed, Some(attempt), verdict)
    }

    /// Interprets a response: 2xx is success, 410 disables the endpoint, everything else is a failure (Standard
    /// Webhooks, "Response status codes").
    fn judge(
        &self,
        claimed: &ClaimedDelivery,
        answer: &Result<WebhookResponse, PostError>,
    ) -> Verdict {
        let failures = u32::try_from(claimed.delivery.attempts_this_round)
            .unwrap_or(0)
            .saturating_add(1);
        let (error, requested) = match answer {
            Ok(answer) if (200..300).contains(&answer.status) => return Verdict::Delivered,
            Ok(WebhookResponse { status: 410, .. }) => {
                let error = "the receiver answered 410 Gone".to_owned();
                return Verdict::Gone { error };
            }
            Ok(answer) if (300..400).contains(&answer.status) => {
                let error = format!(
                    "the receiver answered {}; redirects are not followed",
                    answer.status
                );
                (error, None)
            }
            Ok(answer) => {
                let requested = match (answer.status, &answer.retry_after) {
                    (429 | 503, Some(value)) => backoff::retry_after(value, self.clock.now()),
                    _ => None,
                };
                (
                    format!("the receiver answered {}", answer.status),
                    requested,
                )
            }
            Err(error) => (chain(error), None),
        };
        if failures >= self.max_attempts {
            return Verdict::Failed { error };
        }
        let delay = match requested {
            Some(requested) => self.backoff.delay_after(failures, requested),
            None => self.backoff.delay(failures),
        };
        Verdict::Retry {
            at: self.clock.after(delay),
            error,
        }
    }

    /// Records the outcome. A database that is briefly unreachable must not cause a second delivery, so this retries
    /// for as long as the lease lasts.
    async fn record(
        &self,
        entry: Arc<AttemptRecord>,
        leased_until: Instant,
    ) -> Result<claims::RecordOutcome, DeliverError> {
        loop {
            match self.claims.record(Arc::clone(&entry)).await {
                Err(error)
                    if error.is_transient()
                        && Instant::now() + RECORD_RETRY_INTERVAL < leased_until =>
                {
                    tokio::time::sleep(RECORD_RETRY_INTERVAL).await;
                }
                outcome => return outcome,
            }
        }
    }
}

fn entry(
    claimed: &ClaimedDelivery,
    attempt: Option<attempt::Model>,
    verdict: Verdict,
) -> AttemptRecord {
    AttemptRecord {
        delivery_id: claimed.delivery.id,
        event_id: claimed.delivery.event_id,
        webhook_id: claimed.delivery.webhook_id,
        lease_owner: claimed.lease_owner.clone(),
        attempt,
        verdict,
    }
}
