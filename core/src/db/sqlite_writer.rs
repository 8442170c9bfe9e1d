//! The single connection that writes to a SQLite database. It is replaced as soon as it cannot be trusted.
//!
//! sqlx tracks the transaction depth of a connection itself. When a COMMIT or ROLLBACK fails, that depth and SQLite's
//! own state diverge, and what looks like a commit then only releases a savepoint inside a transaction that is never
//! committed. Therefore a connection is not reused after a BEGIN, COMMIT, ROLLBACK or savepoint statement failed: it is
//! closed, which rolls back open transactions, and a new one is opened.

use super::{CONNECT_TIMEOUT, durable};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbErr, RuntimeErr,
    SqliteTransactionMode, SqlxSqliteConnector, TransactionOptions, TransactionTrait,
    sqlx::{
        ConnectOptions, Connection, SqlitePool,
        sqlite::{SqliteConnectOptions, SqlitePoolOptions},
    },
};
use std::path::Path;

/// Allocates as many pages as an upload of many files, so that a disk with less room counts as full. The schema is
/// unchanged afterwards, and the pages are free for reuse.
const PROBE: [&str; 3] = [
    "CREATE TABLE landfall_write_probe (bytes BLOB)",
    "INSERT INTO landfall_write_probe VALUES (zeroblob(262144))",
    "DROP TABLE landfall_write_probe",
];

#[derive(Debug)]
pub(super) struct SqliteWriter {
    options: SqliteConnectOptions,
    /// A pool of one, because SeaORM's transactions take their connection from a pool.
    current: Option<(SqlitePool, DatabaseConnection)>,
}

impl SqliteWriter {
    /// Opens the file, creating it if it does not exist.
    pub(super) async fn open(path: &Path) -> Result<Self, DbErr> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .disable_statement_logging();
        let mut writer = Self {
            options: durable(options),
            current: None,
        };
        writer.connection().await?;
        Ok(writer)
    }

    async fn connection(&mut self) -> Result<&DatabaseConnection, DbErr> {
        if self.current.is_none() {
            let pool = SqlitePoolOptions::new()
                .max_connections(1)
                .acquire_timeout(CONNECT_TIMEOUT)
                .idle_timeout(None)
                .max_lifetime(None)
                .test_before_acquire(false)
                // With a transaction left open, the next BEGIN would create a savepoint in it.
                .before_acquire(|connection, _| {
                    let is_clean = !connection.is_in_transaction();
                    Box::pin(async move { Ok(is_clean) })
                })
                .connect_with(self.options.clone())
                .await
                .map_err(|error| DbErr::Conn(RuntimeErr::SqlxError(error.into())))?;
            let connection = SqlxSqliteConnector::from_sqlx_sqlite_pool(pool.clone());
            self.current = Some((pool, connection));
        }
        match &self.current {
            Some((_, connection)) => Ok(connection),
            None => unreachable!("it was opened"),
        }
    }

    /// Begins a transaction that holds the write lock. SQLite itself rejects BEGIN inside a transaction.
    pub(super) async fn begin(&mut self) -> Result<DatabaseTransaction, DbErr> {
        // IMMEDIATE takes the write lock at once; waiting for a later lock upgrade is not possible (SQLite, "BEGIN
        // IMMEDIATE").
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..Default::default()
        };
        self.connection().await?.begin_with_options(options).await
    }

    /// Closes the connection; the next transaction opens a new one. This does not wait for a disk that hangs: the old
    /// connection ends with its statement, and until then SQLite's own lock prevents the new one from writing.
    pub(super) async fn discard(&mut self) {
        if let Some((pool, _)) = self.current.take() {
            let _ = tokio::time::timeout(CONNECT_TIMEOUT, pool.close()).await;
        }
    }

    /// Makes and commits a meaningless change.
    pub(super) async fn probe(&mut self) -> Result<(), DbErr> {
        let transaction = self.begin().await?;
        for statement in PROBE {
            transaction.execute_unprepared(statement).await?;
        }
        transaction.commit().await
    }
}
