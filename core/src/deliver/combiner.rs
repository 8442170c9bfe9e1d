//! Many callers, few statements: what queued up while the last batch ran is the next batch.
//!
//! There is no delay to gather more: a lone caller's job runs at once, in a batch of one (the idea of
//! [`crate::db`]'s group commit, one level up, where it also saves round trips).

use super::DeliverError;
use futures::future::BoxFuture;
use sea_orm::DbErr;
use std::{fmt, sync::Arc, time::Duration};
use tokio::sync::{mpsc, oneshot};

/// Jobs in one batch.
pub(super) const MOST: usize = 128;

/// Jobs that may wait before callers are held back.
const QUEUE: usize = 4096;

/// How long a batch may take. A database that hangs must not hold every later batch up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Does a batch; one answer per job, in the order of the jobs.
type Run<J, A> =
    Box<dyn Fn(Vec<Arc<J>>) -> BoxFuture<'static, Result<Vec<A>, DbErr>> + Send + Sync>;

type Waiting<J, A> = (Arc<J>, oneshot::Sender<Result<A, DeliverError>>);

/// Gathers jobs of one kind; ends with its last clone.
pub(super) struct Combiner<J, A> {
    queue: mpsc::Sender<Waiting<J, A>>,
}

impl<J, A> Clone for Combiner<J, A> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
        }
    }
}

impl<J, A> fmt::Debug for Combiner<J, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Combiner").finish_non_exhaustive()
    }
}

impl<J: Send + Sync + 'static, A: Send + 'static> Combiner<J, A> {
    pub(super) fn start(
        run: impl Fn(Vec<Arc<J>>) -> BoxFuture<'static, Result<Vec<A>, DbErr>> + Send + Sync + 'static,
    ) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(run_batches(Box::new(run), waiting));
        Self { queue }
    }

    /// Runs `job` with whatever else is waiting, and answers once its batch is committed.
    pub(super) async fn run(&self, job: Arc<J>) -> Result<A, DeliverError> {
        let (answer, outcome) = oneshot::channel();
        self.queue
            .send((job, answer))
            .await
            .map_err(|_| DeliverError::Ended)?;
        outcome.await.map_err(|_| DeliverError::Ended)?
    }
}

async fn run_batches<J, A>(run: Run<J, A>, mut waiting: mpsc::Receiver<Waiting<J, A>>) {
    let mut batch = Vec::with_capacity(MOST);
    while waiting.recv_many(&mut batch, MOST).await > 0 {
        let (jobs, callers): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
        match attempt(&run, jobs.clone()).await {
            // One job the database cannot take must not fail the others with it.
            Err(error) if jobs.len() > 1 && !error.is_transient() => {
                for (job, caller) in jobs.into_iter().zip(callers) {
                    settle(attempt(&run, vec![job]).await, vec![caller]);
                }
            }
            outcome => settle(outcome, callers),
        }
    }
}

async fn attempt<J, A>(run: &Run<J, A>, jobs: Vec<Arc<J>>) -> Result<Vec<A>, DeliverError> {
    match tokio::time::timeout(PATIENCE, run(jobs)).await {
        Ok(outcome) => outcome.map_err(|error| DeliverError::Database(Arc::new(error))),
        Err(_) => Err(DeliverError::Stalled(PATIENCE)),
    }
}

fn settle<A>(
    outcome: Result<Vec<A>, DeliverError>,
    callers: Vec<oneshot::Sender<Result<A, DeliverError>>>,
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
