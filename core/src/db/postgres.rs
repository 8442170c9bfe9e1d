//! PostgreSQL: a connection pool with server-side timeouts for statements, locks and idle transactions, and client-side
//! timeouts for calls. Also through a connection pooler in transaction mode (see [`super::pooler`]).

use super::{
    CONNECT_TIMEOUT,
    connection_monitor::ConnectionMonitor,
    pooler::{self, Pooling},
    transient::{is_serialization_conflict, of_connection},
};
use futures::future::BoxFuture;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbErr, RuntimeErr,
    SqlxPostgresConnector, TransactionTrait,
    sqlx::{
        self, ConnectOptions, Connection, Executor, PgPool,
        postgres::{PgConnectOptions, PgPoolOptions},
    },
};
use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tracing::Instrument;

/// Server-side timeouts, and when the server considers a silent client dead.
const SESSION: &str = "SET statement_timeout = '30s'; SET lock_timeout = '10s'; \
                       SET idle_in_transaction_session_timeout = '30s'; \
                       SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3";

/// Includes waiting for a connection, the statement and the network.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(45);

/// Longer, because a transaction has several statements.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a transaction is run that conflicts with another.
const MAX_ATTEMPTS: u32 = 6;

/// The delay after the first conflict; it doubles with each further one.
const RETRY_DELAY: Duration = Duration::from_millis(5);

#[derive(Clone, Debug)]
pub(super) struct Postgres {
    options: PgConnectOptions,
    pub(super) pooling: Pooling,
    pub(super) pool: DatabaseConnection,
    pub(super) monitor: Arc<ConnectionMonitor>,
}

impl Postgres {
    /// Connects once to report errors early; after that, the pool connects on demand.
    pub(super) async fn open(url: &str, connections: u32) -> Result<Self, DbErr> {
        let of_driver = |error: sqlx::Error| DbErr::Conn(RuntimeErr::SqlxError(error.into()));
        let options: PgConnectOptions = url.parse().map_err(of_driver)?;
        // Values are sent in binary form, and poolers know only a few parameters.
        let mut options = options.extra_float_digits(None).disable_statement_logging();
        let first = tokio::time::timeout(CONNECT_TIMEOUT, options.connect()).await;
        let first = first.map_err(|_| of_driver(sqlx::Error::PoolTimedOut))?;
        let first = first.map_err(|error| {
            let (host, port) = (options.get_host(), options.get_port());
            DbErr::Conn(RuntimeErr::Internal(format!("{host}:{port}: {error}")))
        })?;
        let _ = first.close().await;
        let detected = tokio::time::timeout(CONNECT_TIMEOUT, pooler::detect(&options)).await;
        let pooling = detected.map_err(|_| of_driver(sqlx::Error::PoolTimedOut))?;
        let pooling = pooling.map_err(of_driver)?;
        if let Some(description) = pooling.description() {
            tracing::info!("PostgreSQL is reached {description}");
        }
        if pooling.needs_transactions() {
            options = options.statement_cache_capacity(0);
        }
        let monitor = ConnectionMonitor::new(options.clone(), pooling);
        let pool = pool(&options, pooling, connections, &monitor);
        Ok(Self {
            options,
            pooling,
            pool: SqlxPostgresConnector::from_sqlx_postgres_pool(pool),
            monitor,
        })
    }

    /// Opens two connections outside the pool, without session timeouts, for schema changes.
    pub(super) async fn unlimited(&self) -> Result<DatabaseConnection, DbErr> {
        let pool = PgPoolOptions::new()
            .max_connections(2)
            .acquire_timeout(CONNECT_TIMEOUT)
            .connect_with(self.options.clone())
            .await
            .map_err(|error| DbErr::Conn(RuntimeErr::SqlxError(error.into())))?;
        Ok(SqlxPostgresConnector::from_sqlx_postgres_pool(pool))
    }

    /// Runs `operation` in a transaction.
    pub(super) async fn write<T, E, F>(&self, operation: F) -> Result<T, E>
    where
        E: From<DbErr> + Error + Send + 'static,
        F: for<'c> FnOnce(&'c DatabaseTransaction) -> BoxFuture<'c, Result<T, E>>,
    {
        self.monitor
            .call(WRITE_TIMEOUT, self.transact(operation))
            .await
    }

    /// Runs `operation` in a transaction, and retries it when it conflicts with another.
    pub(super) async fn write_repeatable<T, E, F>(&self, mut operation: F) -> Result<T, E>
    where
        E: From<DbErr> + Error + Send + 'static,
        F: for<'c> FnMut(&'c DatabaseTransaction) -> BoxFuture<'c, Result<T, E>>,
    {
        let mut pause = RETRY_DELAY;
        for _ in 1..MAX_ATTEMPTS {
            match self.write(|transaction| operation(transaction)).await {
                Err(error) if is_serialization_conflict(&error) => {}
                outcome => return outcome,
            }
            tokio::time::sleep(pause.mul_f64(rand::random::<f64>() + 0.5)).await;
            pause *= 2;
        }
        self.write(operation).await
    }

    async fn transact<T, E, F>(&self, operation: F) -> Result<T, E>
    where
        E: From<DbErr> + Error + Send + 'static,
        F: for<'c> FnOnce(&'c DatabaseTransaction) -> BoxFuture<'c, Result<T, E>>,
    {
        let has_failed = Arc::new(AtomicBool::new(false));
        let transaction = begin(self.watched(&has_failed), self.pooling)
            .await
            .map_err(|error| self.connection_failed(error))?;
        match operation(&transaction).await {
            // PostgreSQL responds to the COMMIT of such a transaction with success, but rolls it back.
            Ok(_) if has_failed.load(Ordering::Acquire) => {
                let _ = transaction.rollback().await;
                Err(DbErr::Custom("a statement failed, so nothing was committed".to_owned()).into())
            }
            Ok(value) => match transaction.commit().await {
                Ok(()) => Ok(value),
                Err(error) if is_serialization_conflict(&error) => Err(error.into()),
                Err(error) => Err(self.connection_failed(error).into()),
            },
            Err(error) => {
                if let Err(rollback) = transaction.rollback().await {
                    self.connection_failed(rollback);
                } else if let Some(broken) = super::transient::broken_connection(&error) {
                    self.monitor.fail(&broken);
                }
                Err(error)
            }
        }
    }

    /// Returns the pool, recording whether a statement fails.
    fn watched(&self, has_failed: &Arc<AtomicBool>) -> DatabaseConnection {
        let mut pool = self.pool.clone();
        let has_failed = Arc::clone(has_failed);
        pool.set_metric_callback(move |info| {
            if info.failed {
                has_failed.store(true, Ordering::Release);
            }
        });
        pool
    }

    /// BEGIN, COMMIT or ROLLBACK failed: retire all connections as old as this one.
    fn connection_failed(&self, error: DbErr) -> DbErr {
        let error = of_connection(error);
        if !matches!(error, DbErr::ConnectionAcquire(_)) {
            self.monitor.fail(&error);
        }
        error
    }
}

fn pool(
    options: &PgConnectOptions,
    pooling: Pooling,
    connections: u32,
    monitor: &Arc<ConnectionMonitor>,
) -> PgPool {
    let (before, after) = (Arc::clone(monitor), Arc::clone(monitor));
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(CONNECT_TIMEOUT)
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            Box::pin(async move {
                match pooling {
                    Pooling::Direct => connection.execute(SESSION).await.map(drop),
                    Pooling::Transactions | Pooling::TransactionsAndStatements => Ok(()),
                }
            })
        })
        .before_acquire(move |connection, meta| {
            let monitor = Arc::clone(&before);
            Box::pin(async move {
                monitor
                    .may_be_used(connection, meta.age, meta.idle_for)
                    .await
            })
        })
        .after_release(move |connection, meta| {
            let monitor = Arc::clone(&after);
            Box::pin(async move { monitor.may_be_kept(connection, meta.age).await })
        })
        .connect_lazy_with(options.clone())
}

/// Begins a transaction in a task that is never cancelled. sqlx records that a connection is in a transaction only when
/// BEGIN is answered; if the caller were cancelled before, the pool would hand out a connection with an open
/// transaction.
pub(super) async fn begin(
    pool: DatabaseConnection,
    pooling: Pooling,
) -> Result<DatabaseTransaction, DbErr> {
    let beginning = tokio::spawn(async move { pool.begin().await }.in_current_span());
    let transaction = beginning
        .await
        .map_err(|lost| DbErr::Conn(RuntimeErr::Internal(lost.to_string())))??;
    if let Some(preamble) = pooling.preamble() {
        transaction.execute_unprepared(preamble).await?;
    }
    Ok(transaction)
}
