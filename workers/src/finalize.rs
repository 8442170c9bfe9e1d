//! `finalize`: one run for one file.

use crate::{
    jobs::FinalizeJob,
    meter::{Meter, Stage},
};
use apalis::prelude::{BoxDynError, Data};
use landfall_core::{
    clock::Clock,
    finalize::{FinalizeOutcome, Finalizer},
};
use landfall_queue::RetryAfter;
use std::{
    error::Error,
    time::{Duration, Instant},
};

/// Minimum retry delay, so that workers waiting for each other's lease do not spin.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(20);

/// Retry delay of a run that could not record its outcome: shorter than any lease.
const RETRY_DELAY: Duration = Duration::from_secs(1);

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
        Ok(FinalizeOutcome::Stored) => "stored",
        Ok(FinalizeOutcome::Failed) => "failed",
        Ok(FinalizeOutcome::Later(_)) => "later",
        Ok(FinalizeOutcome::Nothing) => "nothing",
        Ok(FinalizeOutcome::LeaseLost) => "lease_lost",
        Ok(FinalizeOutcome::Released) => "released",
        Err(_) => "error",
    };
    meter.took(Stage::Finalize, word, begun.elapsed());
    let (wait, reason) = match outcome {
        Ok(FinalizeOutcome::Stored | FinalizeOutcome::Failed | FinalizeOutcome::Nothing) => {
            return Ok(());
        }
        Ok(FinalizeOutcome::Later(at)) => {
            let wait = (at - clock.now()).to_std().unwrap_or_default();
            (wait, "not due yet according to the database".to_owned())
        }
        Ok(FinalizeOutcome::LeaseLost) => (RETRY_DELAY, "the lease was lost".to_owned()),
        Ok(FinalizeOutcome::Released) => (MIN_RETRY_DELAY, "the worker is stopping".to_owned()),
        // The database is unreachable: the job must be there when it is back, before the sweep would push it.
        Err(error) if finalizer.is_database_unreachable() => {
            tracing::debug!(
                error = &error as &dyn Error,
                "the file waits until the database responds"
            );
            (RETRY_DELAY, error.to_string())
        }
        Err(error) => {
            tracing::warn!(
                error = &error as &dyn Error,
                "the file could not be finalized, will retry"
            );
            (RETRY_DELAY, error.to_string())
        }
    };
    Err(RetryAfter::not_yet(wait.max(MIN_RETRY_DELAY), reason).into())
}
