//! `deliver`: one attempt of one delivery.

use crate::{jobs::DeliverJob, meter::Meter, queues::Queues};
use apalis::prelude::{BoxDynError, Data};
use landfall_core::{
    clock::Clock,
    deliver::{Deliverer, Outcome},
};
use landfall_queue::{JobContext, RetryAfter};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// An endpoint that has failed so often in a row gets one request at a time until it answers.
const THROTTLE_AFTER: u32 = 5;

/// So that two who wait for each other's lease do not spin.
const AT_LEAST: Duration = Duration::from_millis(20);

/// What the handlers of one process share.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) deliverer: Deliverer,
    pub(crate) queues: Queues,
    pub(crate) clock: Clock,
    meter: Meter,
    throttled: Arc<Mutex<HashSet<String>>>,
}

impl Context {
    pub(crate) fn new(deliverer: Deliverer, queues: Queues, clock: Clock, meter: Meter) -> Self {
        Self {
            deliverer,
            queues,
            clock,
            meter,
            throttled: Arc::default(),
        }
    }

    /// A slow or dead endpoint must not hold slots that others could use; one that answers gets its share back.
    async fn throttle(&self, endpoint: &str, failures: u32) {
        let failing = failures >= THROTTLE_AFTER;
        let changed = {
            let mut throttled = self
                .throttled
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if failing {
                throttled.insert(endpoint.to_owned())
            } else {
                throttled.remove(endpoint)
            }
        };
        if changed
            && let Err(error) = self
                .queues
                .deliver
                .set_group_limit(endpoint, failing.then_some(1))
                .await
        {
            tracing::debug!(%error, webhook.id = endpoint, "the endpoint's share of the workers stays as it was");
        }
    }
}

#[tracing::instrument(name = "deliver", skip_all, fields(delivery.id = %job.delivery_id))]
pub(crate) async fn handle(
    job: DeliverJob,
    run: JobContext,
    context: Data<Context>,
) -> Result<(), BoxDynError> {
    let begun = Instant::now();
    let attempt = context.deliverer.deliver(job.delivery_id).await?;
    // One that was not due, or was somebody else's, is no attempt.
    if attempt.webhook_id.is_some() {
        let word = match attempt.outcome {
            Outcome::Delivered => Some("delivered"),
            Outcome::Later(_) => Some("retried"),
            Outcome::Failed => Some("failed"),
            Outcome::Nothing => None,
        };
        if let Some(word) = word {
            context.meter.delivered(word, begun.elapsed());
        }
    }
    if let (Some(endpoint), Some(failures)) = (&run.group, attempt.consecutive_failures) {
        context.throttle(endpoint, failures).await;
    }
    match attempt.outcome {
        Outcome::Delivered | Outcome::Failed | Outcome::Nothing => Ok(()),
        Outcome::Later(at) => {
            let wait = (at - context.clock.now())
                .to_std()
                .unwrap_or_default()
                .max(AT_LEAST);
            Err(RetryAfter::not_yet(wait, "not due yet, by the database").into())
        }
    }
}
