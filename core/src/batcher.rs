//! Batches jobs of many concurrent callers: the jobs queued while one batch runs form the next batch.
//!
//! There is no artificial delay; only tasks that are already runnable may queue up first. A lone caller's job runs at
//! once, in a batch of one. This is the idea of [`crate::db`]'s group commit one level up, where it also saves round
//! trips. When a batch fails permanently its jobs are run one by one, so a batch may return an error that only one of
//! its jobs caused. A batch that panics counts as failed, and the task keeps running.

use crate::db::{self, queue::take_waiting};
use futures::{FutureExt, future::BoxFuture};
use sea_orm::{DbErr, RuntimeErr};
use std::{fmt, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::sync::{mpsc, oneshot};

/// Maximum number of jobs in one batch.
pub(crate) const MAX_BATCH: usize = 128;

/// Number of jobs that may be queued before callers have to wait.
const QUEUE_CAPACITY: usize = 4096;

/// Maximum duration of a batch, so that a database that hangs does not block later batches forever.
const RUN_TIMEOUT: Duration = Duration::from_secs(30);

/// Tells transient errors from permanent ones.
pub(crate) trait ClassifyError: std::error::Error + Send + Sync + 'static {
    fn is_transient(&self) -> bool;
}

impl ClassifyError for DbErr {
    fn is_transient(&self) -> bool {
        db::is_transient(self)
    }
}

/// Why a job has no result.
#[derive(Debug, thiserror::Error)]
pub enum BatchError<E> {
    /// The error of the batch, shared by all its jobs.
    #[error(transparent)]
    Failed(Arc<E>),
    #[error("the database took longer than {0:?} for a batch")]
    Stalled(Duration),
    #[error("a batch panicked")]
    Panicked,
    #[error("the batching task has ended")]
    Ended,
}

// A derived impl would require `E: Clone`.
impl<E> Clone for BatchError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Failed(error) => Self::Failed(Arc::clone(error)),
            Self::Stalled(timeout) => Self::Stalled(*timeout),
            Self::Panicked => Self::Panicked,
            Self::Ended => Self::Ended,
        }
    }
}

impl<E> BatchError<E> {
    /// Converts this into a database error; the batch's own error is lost.
    pub(crate) fn into_database(self) -> DbErr {
        match self {
            Self::Failed(_) | Self::Panicked => db::panicked(),
            Self::Stalled(_) | Self::Ended => {
                DbErr::Conn(RuntimeErr::Internal(self.reason().to_owned()))
            }
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Failed(_) => "a batch failed",
            Self::Stalled(_) => "the database took too long for a batch",
            Self::Panicked => "a batch panicked",
            Self::Ended => "the batching task has ended",
        }
    }
}

impl From<BatchError<Self>> for DbErr {
    fn from(error: BatchError<Self>) -> Self {
        match error {
            BatchError::Failed(shared) => db::copy(&shared),
            other => other.into_database(),
        }
    }
}

/// Jobs that run together; cheap to clone, so that they can be run again.
pub(crate) type Batch<J> = Arc<[Arc<J>]>;

/// Runs a batch and returns one result per job, in the order of the jobs.
type RunBatch<J, A, E> =
    Box<dyn Fn(Batch<J>) -> BoxFuture<'static, Result<Vec<A>, E>> + Send + Sync>;

type QueuedJob<J, A, E> = (Arc<J>, oneshot::Sender<Result<A, BatchError<E>>>);

/// Batches jobs of one kind. Its task ends when the last clone is dropped.
pub(crate) struct Batcher<J, A, E> {
    queue: mpsc::Sender<QueuedJob<J, A, E>>,
}

impl<J, A, E> Clone for Batcher<J, A, E> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
        }
    }
}

impl<J, A, E> fmt::Debug for Batcher<J, A, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batcher").finish_non_exhaustive()
    }
}

impl<J: Send + Sync + 'static, A: Send + 'static, E: ClassifyError> Batcher<J, A, E> {
    /// Must be called within a Tokio runtime.
    pub(crate) fn start(
        run: impl Fn(Batch<J>) -> BoxFuture<'static, Result<Vec<A>, E>> + Send + Sync + 'static,
    ) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE_CAPACITY);
        tokio::spawn(run_batches(Box::new(run), waiting));
        Self { queue }
    }

    /// Runs `job` together with other queued jobs and returns once their batch is committed.
    pub(crate) async fn run(&self, job: Arc<J>) -> Result<A, BatchError<E>> {
        let (answer, outcome) = oneshot::channel();
        self.queue
            .send((job, answer))
            .await
            .map_err(|_| BatchError::Ended)?;
        outcome.await.map_err(|_| BatchError::Ended)?
    }
}

async fn run_batches<J, A, E: ClassifyError>(
    run: RunBatch<J, A, E>,
    mut waiting: mpsc::Receiver<QueuedJob<J, A, E>>,
) {
    let mut batch = Vec::with_capacity(MAX_BATCH);
    while take_waiting(&mut waiting, &mut batch, MAX_BATCH).await {
        let (jobs, callers): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
        let jobs = Batch::from(jobs);
        match attempt(&run, Arc::clone(&jobs)).await {
            // One job that the database rejects must not fail the others.
            Err(error) if jobs.len() > 1 && may_be_one_job(&error) => {
                for (job, caller) in jobs.iter().zip(callers) {
                    let alone = Batch::from([Arc::clone(job)]);
                    settle(attempt(&run, alone).await, vec![caller]);
                }
            }
            outcome => settle(outcome, callers),
        }
    }
}

/// Whether a single job may have caused the failure of the batch.
fn may_be_one_job<E: ClassifyError>(error: &BatchError<E>) -> bool {
    match error {
        BatchError::Failed(error) => !error.is_transient(),
        BatchError::Panicked => true,
        BatchError::Stalled(_) | BatchError::Ended => false,
    }
}

async fn attempt<J, A, E>(
    run: &RunBatch<J, A, E>,
    jobs: Batch<J>,
) -> Result<Vec<A>, BatchError<E>> {
    let batch = AssertUnwindSafe(async { run(jobs).await }).catch_unwind();
    match tokio::time::timeout(RUN_TIMEOUT, batch).await {
        Ok(Ok(outcome)) => outcome.map_err(|error| BatchError::Failed(Arc::new(error))),
        Ok(Err(_)) => Err(BatchError::Panicked),
        Err(_) => Err(BatchError::Stalled(RUN_TIMEOUT)),
    }
}

fn settle<A, E>(
    outcome: Result<Vec<A>, BatchError<E>>,
    callers: Vec<oneshot::Sender<Result<A, BatchError<E>>>>,
) {
    // The result is not needed if the caller is gone.
    match outcome {
        Ok(answers) => {
            for (answer, caller) in answers.into_iter().zip(callers) {
                let _ = caller.send(Ok(answer));
            }
        }
        Err(error) => {
            for caller in callers {
                let _ = caller.send(Err(error.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::join_all;
    use std::sync::Mutex;

    #[tokio::test]
    async fn job_that_fails_for_good_takes_none_of_its_batch_along() {
        let batches = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&batches);
        let batcher = Batcher::start(move |jobs: Batch<u32>| {
            seen.lock().unwrap().push(jobs.len());
            Box::pin(async move {
                // The first call blocks its batch until the others have queued up.
                tokio::task::yield_now().await;
                match jobs.iter().any(|job| **job == 3) {
                    true => Err(DbErr::Custom("three".to_owned())),
                    false => Ok(jobs.iter().map(|job| **job * 10).collect()),
                }
            })
        });
        let answers = join_all((0..6).map(|job| batcher.run(Arc::new(job)))).await;
        for (job, answer) in answers.into_iter().enumerate() {
            match (job, answer) {
                (3, answer) => assert!(matches!(answer, Err(BatchError::Failed(_)))),
                (job, answer) => assert_eq!(answer.unwrap() as usize, job * 10),
            }
        }
        let batches = batches.lock().unwrap();
        assert!(batches.iter().any(|size| *size > 1), "{batches:?}");
    }

    #[tokio::test]
    async fn job_that_panics_ends_neither_the_others_nor_the_task() {
        let batcher = Batcher::start(move |jobs: Batch<u32>| {
            Box::pin(async move {
                assert!(jobs.iter().all(|job| **job != 3), "it is three");
                tokio::task::yield_now().await;
                Ok::<_, DbErr>(jobs.iter().map(|job| **job * 10).collect())
            })
        });
        for _ in 0..2 {
            let answers = join_all((0..6).map(|job| batcher.run(Arc::new(job)))).await;
            for (job, answer) in answers.into_iter().enumerate() {
                match (job, answer) {
                    (3, answer) => assert!(matches!(answer, Err(BatchError::Panicked))),
                    (job, answer) => assert_eq!(answer.unwrap() as usize, job * 10),
                }
            }
        }
    }
}
