//! `finalize`: one run for one file.

use crate::{
    jobs::FinalizeJob,
    meter::{Meter, Stage},
};
use apalis::prelude::{BoxDynError, Data};
use landfall_core::{
    clock::Clock,
    finalize::{Finalizer, Outcome},
};
use landfall_queue::RetryAfter;
use std::time::{Duration, Instant};

/// So that two who wait for each other's lease do not spin.
const AT_LEAST: Duration = Duration::from_millis(20);

#[tracing::instrument(name = "finalize", skip_all, fields(file.id = %job.file_id))]
pub(crate) async fn handle(
    job: FinalizeJob,
    clock: Data<Clock>,
    finalizer: Data<Finalizer>,
    meter: Data<Meter>,
) -> Result<(), BoxDynError> {
    let begun = Instant::now();
    let outcome = finalizer.finalize(job.file_id).await;
    let word = match &outcome {
        Ok(Outcome::Stored) => "stored",
        Ok(Outcome::Failed) => "failed",
        Ok(Outcome::Later(_)) => "later",
        Ok(Outcome::Nothing) => "nothing",
        Ok(Outcome::LeaseLost) => "lease_lost",
        Err(_) => "error",
    };
    meter.took(Stage::Finalize, word, begun.elapsed());
    match outcome? {
        Outcome::Stored | Outcome::Failed | Outcome::Nothing | Outcome::LeaseLost => Ok(()),
        Outcome::Later(at) => {
            let wait = (at - clock.now())
                .to_std()
                .unwrap_or_default()
                .max(AT_LEAST);
            Err(RetryAfter::not_yet(wait, "not due yet, by the database").into())
        }
    }
}
