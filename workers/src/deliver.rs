//! `deliver`: one attempt of one delivery.

use crate::{endpoint_limits::EndpointLimits, jobs::DeliverJob, meter::Meter, queues::Queues};
use apalis::prelude::{BoxDynError, Data};
use landfall_core::{
    clock::Clock,
    deliver::{Deliverer, DeliveryOutcome},
};
use landfall_queue::{JobContext, RetryAfter};
use std::time::{Duration, Instant};

/// Minimum retry delay, so that workers waiting for each other's lease do not spin.
const MIN_DELAY: Duration = Duration::from_millis(20);

/// Shared by the handlers of one process.
#[derive(Clone, Debug)]
pub(crate) struct DeliverContext {
    pub(crate) deliverer: Deliverer,
    pub(crate) clock: Clock,
    pub(crate) limits: EndpointLimits,
    meter: Meter,
}

impl DeliverContext {
    pub(crate) fn new(deliverer: Deliverer, queues: &Queues, clock: Clock, meter: Meter) -> Self {
        Self {
            deliverer,
            limits: EndpointLimits::new(queues.deliver.clone()),
            clock,
            meter,
        }
    }
}

#[tracing::instrument(name = "deliver", skip_all, fields(delivery.id = %job.delivery_id))]
pub(crate) async fn handle(
    job: DeliverJob,
    run: JobContext,
    context: Data<DeliverContext>,
) -> Result<(), BoxDynError> {
    let begun = Instant::now();
    let attempt = context.deliverer.deliver(job.delivery_id).await?;
    // A delivery that was not due, or is leased by another worker, is not an attempt.
    if attempt.webhook_id.is_some() {
        let word = match attempt.outcome {
            DeliveryOutcome::Delivered => Some("delivered"),
            DeliveryOutcome::Later(_) => Some("retried"),
            DeliveryOutcome::Failed => Some("failed"),
            DeliveryOutcome::Nothing => None,
        };
        if let Some(word) = word {
            context.meter.delivered(word, begun.elapsed());
        }
    }
    if let (Some(endpoint), Some(failures)) = (&run.group, attempt.consecutive_failures)
        && attempt.outcome != DeliveryOutcome::Nothing
    {
        context.limits.follow(endpoint, failures).await;
    }
    match attempt.outcome {
        DeliveryOutcome::Delivered | DeliveryOutcome::Failed | DeliveryOutcome::Nothing => Ok(()),
        DeliveryOutcome::Later(at) => {
            let wait = (at - context.clock.now())
                .to_std()
                .unwrap_or_default()
                .max(MIN_DELAY);
            Err(RetryAfter::not_yet(wait, "not due yet according to the database").into())
        }
    }
}
