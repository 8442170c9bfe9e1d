//! Group commit for SQLite: operations that queued up while the last commit was written to disk are committed together.
//!
//! A single task owns the writing connection. It takes all queued operations (up to [`MAX_GROUP`]), runs them in one
//! transaction, commits once, and only then returns each caller its own result; if the commit fails, all of them fail.
//! An operation that fails does not affect the others, because it is rolled back to its own savepoint. Repeatable
//! operations need no savepoint, which saves two of about six statements: when one of them fails, everything is rolled
//! back and each of them runs again in a transaction of its own. There is no artificial delay: an idle writer commits a
//! single operation at once, a busy one amortizes the disk (as PostgreSQL's commit_siblings does; see Gawlick and
//! Kinkade, "Varieties of concurrency control in IMS/VS fast path", 1985).

use super::{
    health::{WriteFault, WriteHealth},
    queue::take_waiting,
    sqlite_writer::SqliteWriter,
    transient::{broken_connection, copy, of_connection},
};
use futures::{FutureExt, future::BoxFuture};
use sea_orm::{DatabaseTransaction, DbErr, RuntimeErr, TransactionTrait};
use std::{error::Error, panic::AssertUnwindSafe, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

/// Maximum number of operations in one commit: enough to amortize a slow disk, few enough to keep waits short.
const MAX_GROUP: usize = 256;

/// Number of operations that may be queued before callers have to wait.
const QUEUE_CAPACITY: usize = 4096;

/// How long a caller waits. The operation may still be committed afterwards, as after any lost response.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a failed writer is probed in addition to callers' writes.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// The result of an operation within its transaction.
enum OperationOutcome {
    Done,
    /// The operation's changes must not be committed.
    Refused,
    /// Nothing that this connection did since its last commit may be committed.
    Broken(DbErr),
}

/// A queued operation, whose caller gets the result once the outcome of the commit is known.
trait Operation: Send {
    fn run<'c>(
        &'c mut self,
        transaction: &'c DatabaseTransaction,
    ) -> BoxFuture<'c, OperationOutcome>;

    /// Whether it may run again after a rollback.
    fn can_run_again(&self) -> bool;

    fn settle(self: Box<Self>, committed: Result<(), &DbErr>);
}

type OperationFn<T, E> =
    Box<dyn for<'c> FnMut(&'c DatabaseTransaction) -> BoxFuture<'c, Result<T, E>> + Send>;

struct QueuedWrite<T, E> {
    run: OperationFn<T, E>,
    can_run_again: bool,
    outcome: Option<Result<T, E>>,
    answer: oneshot::Sender<Result<T, E>>,
}

impl<T, E> Operation for QueuedWrite<T, E>
where
    T: Send + 'static,
    E: From<DbErr> + Error + Send + 'static,
{
    fn run<'c>(
        &'c mut self,
        transaction: &'c DatabaseTransaction,
    ) -> BoxFuture<'c, OperationOutcome> {
        Box::pin(async move {
            let run = &mut self.run;
            let outcome = AssertUnwindSafe(async { run(transaction).await })
                .catch_unwind()
                .await
                .unwrap_or_else(|_| Err(panicked().into()));
            let ran = match &outcome {
                Ok(_) => OperationOutcome::Done,
                Err(error) => broken_connection(error)
                    .map_or(OperationOutcome::Refused, OperationOutcome::Broken),
            };
            self.outcome = Some(outcome);
            ran
        })
    }

    fn can_run_again(&self) -> bool {
        self.can_run_again
    }

    fn settle(self: Box<Self>, committed: Result<(), &DbErr>) {
        let outcome = match (self.outcome, committed) {
            (Some(outcome), Ok(())) => outcome,
            (Some(Err(own)), Err(_)) => Err(own),
            (Some(Ok(_)) | None, Err(error)) => Err(copy(error).into()),
            (None, Ok(())) => Err(writer_gone().into()),
        };
        // The result is not needed if the caller is gone.
        let _ = self.answer.send(outcome);
    }
}

type WriteGroup = Vec<Box<dyn Operation>>;

#[derive(Clone, Debug)]
pub(super) struct GroupCommit {
    queue: mpsc::Sender<Box<dyn Operation>>,
    health: Arc<WriteHealth>,
}

impl GroupCommit {
    pub(super) fn start(writer: SqliteWriter) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE_CAPACITY);
        let health = Arc::<WriteHealth>::default();
        let committer = Committer {
            writer,
            health: Arc::clone(&health),
            probed: Instant::now(),
        };
        tokio::spawn(committer.commit_groups(waiting));
        Self { queue, health }
    }

    /// Returns why nothing can be written.
    pub(super) fn fault(&self) -> Option<WriteFault> {
        match self.queue.is_closed() {
            true => Some(WriteFault {
                reason: "its writer has ended".to_owned(),
                cause: writer_gone().to_string(),
            }),
            false => self.health.fault(),
        }
    }

    pub(super) async fn run<T, E, F>(&self, operation: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DbErr> + Error + Send + 'static,
        F: for<'c> FnOnce(&'c DatabaseTransaction) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
    {
        let mut operation = Some(operation);
        let run: OperationFn<T, E> = Box::new(move |transaction| match operation.take() {
            Some(operation) => operation(transaction),
            None => Box::pin(async { Err(writer_gone().into()) }),
        });
        self.wait(run, false).await
    }

    pub(super) async fn run_repeatable<T, E, F>(&self, operation: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DbErr> + Error + Send + 'static,
        F: for<'c> FnMut(&'c DatabaseTransaction) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
    {
        self.wait(Box::new(operation), true).await
    }

    async fn wait<T, E>(&self, run: OperationFn<T, E>, can_run_again: bool) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DbErr> + Error + Send + 'static,
    {
        let (answer, outcome) = oneshot::channel();
        let waiting = QueuedWrite {
            run,
            can_run_again,
            outcome: None,
            answer,
        };
        let answered = tokio::time::timeout(WRITE_TIMEOUT, async {
            let sent = self.queue.send(Box::new(waiting)).await;
            sent.map_err(|_| writer_gone())?;
            outcome.await.map_err(|_| writer_gone())
        });
        answered.await.map_err(|_| too_slow())??
    }
}

fn writer_gone() -> DbErr {
    DbErr::Conn(RuntimeErr::Internal(
        "the database writer ended before this was written".to_owned(),
    ))
}

fn too_slow() -> DbErr {
    DbErr::Conn(RuntimeErr::Internal(format!(
        "the database took longer than {WRITE_TIMEOUT:?} to write this"
    )))
}

/// Not a database error, since the same operation would panic again.
pub(crate) fn panicked() -> DbErr {
    DbErr::Custom("a write operation panicked".to_owned())
}

/// The task that owns the writer.
struct Committer {
    writer: SqliteWriter,
    health: Arc<WriteHealth>,
    /// When the writer was last probed.
    probed: Instant,
}

impl Committer {
    async fn commit_groups(mut self, mut waiting: mpsc::Receiver<Box<dyn Operation>>) {
        let mut group = Vec::with_capacity(MAX_GROUP);
        while self.next_group(&mut waiting, &mut group).await {
            let group: WriteGroup = std::mem::replace(&mut group, Vec::with_capacity(MAX_GROUP));
            self.health.writing(true);
            let ended = AssertUnwindSafe(self.commit_group(group))
                .catch_unwind()
                .await;
            if ended.is_err() {
                // Panics of operations are caught, so this one is the writer's; the callers learn that the writer is
                // gone.
                self.replace(&panicked()).await;
            }
            self.health.writing(false);
        }
    }

    /// Fills `group`; returns false once the queue is closed. While the database is not writable, it is probed every
    /// second.
    async fn next_group(
        &mut self,
        waiting: &mut mpsc::Receiver<Box<dyn Operation>>,
        group: &mut WriteGroup,
    ) -> bool {
        while self.health.is_faulty() {
            let probe_at = self.probed + PROBE_INTERVAL;
            match tokio::time::timeout_at(probe_at, waiting.recv_many(group, MAX_GROUP)).await {
                Ok(received) => return received > 0,
                Err(_) => self.probe().await,
            }
        }
        take_waiting(waiting, group, MAX_GROUP).await
    }

    async fn probe(&mut self) {
        match self.writer.probe().await {
            Ok(()) => {
                if self.health.succeed() {
                    tracing::info!("the database is writable again");
                }
            }
            Err(error) => self.replace(&error).await,
        }
        self.probed = Instant::now();
    }

    async fn replace(&mut self, error: &DbErr) {
        if self.health.fail(error) {
            tracing::error!(%error, "the database is not writable; its connection is replaced");
            self.probed = Instant::now();
        }
        self.writer.discard().await;
    }

    async fn commit_group(&mut self, group: WriteGroup) {
        let (mut repeatable, mut once): (WriteGroup, WriteGroup) =
            group.into_iter().partition(|one| one.can_run_again());
        let committed = match (&mut repeatable[..], &mut once[..]) {
            ([one], []) | ([], [one]) => self.execute_single(one.as_mut()).await.map(|()| true),
            (repeatable, once) => self.execute_group(repeatable, once).await,
        };
        if let Ok(false) = committed {
            // One of the operations without a savepoint failed, and the rollback undid the others as well.
            for mut one in repeatable {
                let committed = self.execute_single(one.as_mut()).await;
                one.settle(committed.as_ref().copied());
            }
            // None of these has run yet.
            if !once.is_empty() {
                let committed = self.execute_group(&mut [], &mut once).await;
                settle(once, &committed.map(drop));
            }
        } else {
            let committed = committed.map(drop);
            settle(repeatable, &committed);
            settle(once, &committed);
        }
    }

    async fn execute_single(&mut self, one: &mut dyn Operation) -> Result<(), DbErr> {
        let committed = run_alone(&mut self.writer, one)
            .await
            .map_err(of_connection);
        if let Err(error) = &committed {
            self.replace(error).await;
        }
        committed
    }

    async fn execute_group(
        &mut self,
        repeatable: &mut [Box<dyn Operation>],
        once: &mut [Box<dyn Operation>],
    ) -> Result<bool, DbErr> {
        let committed = run_together(&mut self.writer, repeatable, once)
            .await
            .map_err(of_connection);
        if let Err(error) = &committed {
            self.replace(error).await;
        }
        committed
    }
}

fn settle(group: WriteGroup, committed: &Result<(), DbErr>) {
    for one in group {
        one.settle(committed.as_ref().copied());
    }
}

/// An error concerns the connection, never the operation; the transaction has ended, or ends with the connection.
async fn run_alone(writer: &mut SqliteWriter, one: &mut dyn Operation) -> Result<(), DbErr> {
    let transaction = writer.begin().await?;
    match one.run(&transaction).await {
        OperationOutcome::Done => transaction.commit().await,
        OperationOutcome::Refused => transaction.rollback().await,
        OperationOutcome::Broken(error) => Err(error),
    }
}

/// Returns false when one of the `repeatable` operations failed: then nothing is committed, and none of `once` has run.
/// Errors are as for [`run_alone`].
async fn run_together(
    writer: &mut SqliteWriter,
    repeatable: &mut [Box<dyn Operation>],
    once: &mut [Box<dyn Operation>],
) -> Result<bool, DbErr> {
    let transaction = writer.begin().await?;
    for one in repeatable {
        match one.run(&transaction).await {
            OperationOutcome::Done => {}
            OperationOutcome::Refused => {
                transaction.rollback().await?;
                return Ok(false);
            }
            OperationOutcome::Broken(error) => return Err(error),
        }
    }
    for one in once {
        let savepoint = transaction.begin().await?;
        match one.run(&savepoint).await {
            OperationOutcome::Done => savepoint.commit().await?,
            OperationOutcome::Refused => savepoint.rollback().await?,
            OperationOutcome::Broken(error) => return Err(error),
        }
    }
    transaction.commit().await?;
    Ok(true)
}
