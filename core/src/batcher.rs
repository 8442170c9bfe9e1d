//! Many callers, few statements: what queued up while the last batch ran is the next batch.
//!
//! There is no delay to gather more, but for the tasks that are ready to run anyhow: a lone caller's job runs at once, in
//! a batch of one (the idea of [`crate::db`]'s group commit, one level up, where it also saves round trips). A batch that fails for good is taken
//! apart and its jobs run one by one, so a batch may treat as an error what only one of its jobs has done wrong. One
//! that panics is a failed batch; the task goes on.

use crate::db;
use futures::{FutureExt, future::BoxFuture};
use sea_orm::{DbErr, RuntimeErr};
use std::{fmt, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::sync::{mpsc, oneshot};

/// Jobs in one batch.
pub(crate) const MAX_BATCH: usize = 128;

/// Jobs that may wait before callers are held back.
const QUEUE_CAPACITY: usize = 4096;

/// How long a batch may take. A database that hangs must not hold every later batch up.
const RUN_TIMEOUT: Duration = Duration::from_secs(30);

/// Whether an error may well be gone a moment later.
pub(crate) trait ClassifyError: std::error::Error + Send + Sync + 'static {
    fn is_transient(&self) -> bool;
}

impl ClassifyError for DbErr {
    fn is_transient(&self) -> bool {
        db::is_transient(self)
    }
}

/// Why a job has no answer.
#[derive(Debug, thiserror::Error)]
pub enum BatchError<E> {
    /// Shared by all that were in the batch.
    #[error(transparent)]
    Failed(Arc<E>),
    #[error("the database took longer than {0:?} over a batch")]
    Stalled(Duration),
    #[error("what a batch did panicked")]
    Panicked,
    #[error("the task that gathers has ended")]
    Ended,
}

// Derived, it would ask the same of `E`.
impl<E> Clone for BatchError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Failed(error) => Self::Failed(Arc::clone(error)),
            Self::Stalled(patience) => Self::Stalled(*patience),
            Self::Panicked => Self::Panicked,
            Self::Ended => Self::Ended,
        }
    }
}

impl<E> BatchError<E> {
    /// As an error of the database; what a batch failed for is lost in it.
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
            Self::Stalled(_) => "the database took too long over a batch",
            Self::Panicked => "what a batch did panicked",
            Self::Ended => "the task that gathers has ended",
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

/// Jobs to be done together; cheap to clone, for whoever must do them once more.
pub(crate) type Batch<J> = Arc<[Arc<J>]>;

/// Does a batch; one answer per job, in the order of the jobs.
type RunBatch<J, A, E> =
    Box<dyn Fn(Batch<J>) -> BoxFuture<'static, Result<Vec<A>, E>> + Send + Sync>;

type QueuedJob<J, A, E> = (Arc<J>, oneshot::Sender<Result<A, BatchError<E>>>);

/// Gathers jobs of one kind; ends with its last clone.
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

    /// Runs `job` with whatever else is waiting, and answers once its batch is committed.
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
            // One job the database cannot take must not fail the others with it.
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

/// True when one job of a batch may be what the batch failed for.
fn may_be_one_job<E: ClassifyError>(error: &BatchError<E>) -> bool {
    match error {
        BatchError::Failed(error) => !error.is_transient(),
        BatchError::Panicked => true,
        BatchError::Stalled(_) | BatchError::Ended => false,
    }
}

/// Fills `batch` with what waits, at most `most`, and waits for one at least; false when nothing will come any more. The
/// tasks that are ready to run may queue up first: under load that makes fewer and larger batches.
pub(crate) async fn take_waiting<T>(
    waiting: &mut mpsc::Receiver<T>,
    batch: &mut Vec<T>,
    most: usize,
) -> bool {
    if waiting.recv_many(batch, most).await == 0 {
        return false;
    }
    tokio::task::yield_now().await;
    while batch.len() < most
        && let Ok(one) = waiting.try_recv()
    {
        batch.push(one);
    }
    true
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
    // A caller that has gone away is not waiting for the answer.
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
                // The first call holds its batch until the others have queued up.
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
