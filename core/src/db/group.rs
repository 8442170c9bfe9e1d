//! Group commit for SQLite: what has queued up while the last commit was on its way to disk is committed together.
//!
//! One task holds the one writing connection. It takes all that waits (up to [`MOST`]), runs each operation in a
//! savepoint of its own, commits once, and only then tells each caller its own outcome. An operation that fails
//! is rolled back to its savepoint and disturbs nobody; one that is alone needs none. There is no delay to gather
//! more: an idle writer commits one operation at once, a busy one amortizes the disk (the same idea as PostgreSQL's
//! commit_siblings and Gawlick and Kinkade's «Varieties of concurrency control in IMS/VS fast path», 1985).

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

/// Tells a caller its outcome once the commit's own is known.
type Settle = Box<dyn FnOnce(Result<(), &DbErr>) + Send>;

/// An operation that has run, within a transaction that is still open.
struct Ran {
    settle: Settle,
    /// It failed and had no savepoint: the transaction goes with it.
    roll_back: bool,
}

/// Runs within the transaction; told whether it is alone there.
type Operation = Box<
    dyn for<'c> FnOnce(&'c DatabaseTransaction, bool) -> BoxFuture<'c, Result<Ran, DbErr>> + Send,
>;

#[derive(Clone, Debug)]
pub(super) struct GroupCommit {
    queue: mpsc::Sender<Operation>,
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
        let (answer, outcome) = oneshot::channel::<Result<T, E>>();
        let boxed: Operation =
            Box::new(move |group, alone| Box::pin(run_in(group, alone, operation, answer)));
        self.queue.send(boxed).await.map_err(|_| writer_gone())?;
        outcome.await.map_err(|_| writer_gone())?
    }
}

fn writer_gone() -> DbErr {
    DbErr::Conn(sea_orm::RuntimeErr::Internal(
        "the writer of the database has ended".to_owned(),
    ))
}

async fn run_in<T, E, F>(
    group: &DatabaseTransaction,
    alone: bool,
    operation: F,
    answer: oneshot::Sender<Result<T, E>>,
) -> Result<Ran, DbErr>
where
    T: Send + 'static,
    E: From<DbErr> + Send + 'static,
    F: for<'c> FnOnce(&'c DatabaseTransaction) -> BoxFuture<'c, Result<T, E>>,
{
    let outcome = if alone {
        operation(group).await
    } else {
        match in_savepoint(group, operation).await {
            Ok(outcome) => outcome,
            Err(error) => {
                // The whole group fails with the same error; this caller hears of it here, the others by the commit.
                let _ = answer.send(Err(copy(&error).into()));
                return Err(error);
            }
        }
    };
    Ok(Ran {
        roll_back: alone && outcome.is_err(),
        settle: Box::new(move |committed| {
            // A caller that has gone away is not waiting for the answer.
            let _ = answer.send(match committed {
                Ok(()) => outcome,
                Err(error) => outcome.and(Err(copy(error).into())),
            });
        }),
    })
}

/// Fails only when there is no savepoint to be had.
async fn in_savepoint<T, E, F>(
    group: &DatabaseTransaction,
    operation: F,
) -> Result<Result<T, E>, DbErr>
where
    E: From<DbErr>,
    F: for<'c> FnOnce(&'c DatabaseTransaction) -> BoxFuture<'c, Result<T, E>>,
{
    let savepoint = group.begin().await?;
    Ok(match operation(&savepoint).await {
        Ok(value) => savepoint.commit().await.map(|()| value).map_err(E::from),
        Err(error) => savepoint.rollback().await.map_err(E::from).and(Err(error)),
    })
}

async fn commit_groups(connection: DatabaseConnection, mut waiting: mpsc::Receiver<Operation>) {
    let mut group = Vec::with_capacity(MOST);
    while waiting.recv_many(&mut group, MOST).await > 0 {
        let mut settled = Vec::with_capacity(group.len());
        let committed = commit_one(&connection, group.drain(..), &mut settled).await;
        for settle in settled {
            settle(committed.as_ref().copied());
        }
    }
}

async fn commit_one(
    connection: &DatabaseConnection,
    operations: impl ExactSizeIterator<Item = Operation>,
    settled: &mut Vec<Settle>,
) -> Result<(), DbErr> {
    // IMMEDIATE takes the write lock at once: a lock upgraded later could not be waited for (SQLite, «BEGIN IMMEDIATE»).
    let options = TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..Default::default()
    };
    let transaction = connection.begin_with_options(options).await?;
    let alone = operations.len() == 1;
    let mut roll_back = false;
    for operation in operations {
        let ran = operation(&transaction, alone).await?;
        roll_back |= ran.roll_back;
        settled.push(ran.settle);
    }
    match roll_back {
        true => transaction.rollback().await,
        false => transaction.commit().await,
    }
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
