//! Group commit for SQLite: what has queued up while the last commit was on its way to disk is committed together.
//!
//! One task holds the one writing connection. It takes all that waits (up to [`MOST`]), runs it within one transaction,
//! commits once, and only then tells each caller its own outcome. An operation that fails disturbs nobody: it is rolled
//! back to a savepoint of its own. Those that can be repeated need none, which spares two of some six statements: when
//! one of them fails, all is rolled back and each of them runs once more by itself. There is no delay to gather more: an
//! idle writer commits one operation at once, a busy one amortizes the disk (the same idea as PostgreSQL's
//! commit_siblings and Gawlick and Kinkade's «Varieties of concurrency control in IMS/VS fast path», 1985).

use crate::combiner::take_waiting;
use futures::future::BoxFuture;
use sea_orm::{
    DatabaseConnection, DatabaseTransaction, DbErr, SqliteTransactionMode, TransactionOptions,
    TransactionTrait,
};
use tokio::sync::{mpsc, oneshot};

/// Operations in one commit: enough to amortize a slow disk, few enough to keep the wait short.
const MOST: usize = 256;

/// Operations that may wait for the writer before callers are held back.
const QUEUE: usize = 4096;

/// What waits for the writer, to be told what became of it once the commit's own outcome is known.
trait Operation: Send {
    /// False when what it did must not be committed.
    fn run<'c>(&'c mut self, transaction: &'c DatabaseTransaction) -> BoxFuture<'c, bool>;

    /// True when it may run once more after it was rolled back.
    fn can_run_again(&self) -> bool;

    fn settle(self: Box<Self>, committed: Result<(), &DbErr>);
}

type Run<T, E> =
    Box<dyn for<'c> FnMut(&'c DatabaseTransaction) -> BoxFuture<'c, Result<T, E>> + Send>;

struct Waiting<T, E> {
    run: Run<T, E>,
    can_run_again: bool,
    outcome: Option<Result<T, E>>,
    answer: oneshot::Sender<Result<T, E>>,
}

impl<T: Send + 'static, E: From<DbErr> + Send + 'static> Operation for Waiting<T, E> {
    fn run<'c>(&'c mut self, transaction: &'c DatabaseTransaction) -> BoxFuture<'c, bool> {
        Box::pin(async move {
            let outcome = (self.run)(transaction).await;
            self.outcome.insert(outcome).is_ok()
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
        // A caller that has gone away is not waiting for the answer.
        let _ = self.answer.send(outcome);
    }
}

type Group = Vec<Box<dyn Operation>>;

#[derive(Clone, Debug)]
pub(super) struct GroupCommit {
    queue: mpsc::Sender<Box<dyn Operation>>,
}

impl GroupCommit {
    pub(super) fn start(connection: DatabaseConnection) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(commit_groups(connection, waiting));
        Self { queue }
    }

    pub(super) async fn run<T, E, F>(&self, operation: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DbErr> + Send + 'static,
        F: for<'c> FnOnce(&'c DatabaseTransaction) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
    {
        let mut operation = Some(operation);
        let run: Run<T, E> = Box::new(move |transaction| match operation.take() {
            Some(operation) => operation(transaction),
            None => Box::pin(async { Err(writer_gone().into()) }),
        });
        self.wait(run, false).await
    }

    pub(super) async fn run_repeatable<T, E, F>(&self, operation: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DbErr> + Send + 'static,
        F: for<'c> FnMut(&'c DatabaseTransaction) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
    {
        self.wait(Box::new(operation), true).await
    }

    async fn wait<T, E>(&self, run: Run<T, E>, can_run_again: bool) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DbErr> + Send + 'static,
    {
        let (answer, outcome) = oneshot::channel();
        let waiting = Waiting {
            run,
            can_run_again,
            outcome: None,
            answer,
        };
        let sent = self.queue.send(Box::new(waiting)).await;
        sent.map_err(|_| writer_gone())?;
        outcome.await.map_err(|_| writer_gone())?
    }
}

fn writer_gone() -> DbErr {
    DbErr::Conn(sea_orm::RuntimeErr::Internal(
        "the writer of the database has ended".to_owned(),
    ))
}

async fn commit_groups(
    connection: DatabaseConnection,
    mut waiting: mpsc::Receiver<Box<dyn Operation>>,
) {
    let mut group = Vec::with_capacity(MOST);
    while take_waiting(&mut waiting, &mut group, MOST).await {
        let (repeatable, once) = group.drain(..).partition(|one| one.can_run_again());
        commit_group(&connection, repeatable, once).await;
    }
}

async fn commit_group(connection: &DatabaseConnection, mut repeatable: Group, mut once: Group) {
    let committed = match (&mut repeatable[..], &mut once[..]) {
        ([one], []) | ([], [one]) => alone(connection, one.as_mut()).await.map(|()| true),
        (repeatable, once) => together(connection, repeatable, once).await,
    };
    if let Ok(false) = committed {
        // Of those that share no savepoint one has failed, and taken what the others did with it.
        for mut one in repeatable {
            let committed = alone(connection, one.as_mut()).await;
            one.settle(committed.as_ref().copied());
        }
        // Nothing of these has run.
        if !once.is_empty() {
            let committed = together(connection, &mut [], &mut once).await;
            settle(once, &committed.map(drop));
        }
    } else {
        let committed = committed.map(drop);
        settle(repeatable, &committed);
        settle(once, &committed);
    }
}

fn settle(group: Group, committed: &Result<(), DbErr>) {
    for one in group {
        one.settle(committed.as_ref().copied());
    }
}

async fn begin(connection: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
    // IMMEDIATE takes the write lock at once: a lock upgraded later could not be waited for (SQLite, «BEGIN IMMEDIATE»).
    let options = TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..Default::default()
    };
    connection.begin_with_options(options).await
}

async fn alone(connection: &DatabaseConnection, one: &mut dyn Operation) -> Result<(), DbErr> {
    let transaction = begin(connection).await?;
    match one.run(&transaction).await {
        true => transaction.commit().await,
        false => transaction.rollback().await,
    }
}

/// False when one of the `repeatable` has failed: nothing is committed then, and none of `once` has run.
async fn together(
    connection: &DatabaseConnection,
    repeatable: &mut [Box<dyn Operation>],
    once: &mut [Box<dyn Operation>],
) -> Result<bool, DbErr> {
    let transaction = begin(connection).await?;
    for one in repeatable {
        if !one.run(&transaction).await {
            transaction.rollback().await?;
            return Ok(false);
        }
    }
    for one in once {
        let savepoint = transaction.begin().await?;
        match one.run(&savepoint).await {
            true => savepoint.commit().await?,
            false => savepoint.rollback().await?,
        }
    }
    transaction.commit().await?;
    Ok(true)
}

/// The same error once more: the database's errors are shared, and SeaORM's are not to be cloned.
pub(crate) fn copy(error: &DbErr) -> DbErr {
    match error {
        DbErr::Exec(sea_orm::RuntimeErr::SqlxError(shared)) => {
            DbErr::Exec(sea_orm::RuntimeErr::SqlxError(shared.clone()))
        }
        DbErr::Query(sea_orm::RuntimeErr::SqlxError(shared)) => {
            DbErr::Query(sea_orm::RuntimeErr::SqlxError(shared.clone()))
        }
        other => DbErr::Conn(sea_orm::RuntimeErr::Internal(other.to_string())),
    }
}
