//! The one connection that writes to a SQLite database, replaced as soon as it cannot be trusted.
//!
//! sqlx counts the depth of a connection's transactions by itself. When a COMMIT or ROLLBACK fails that count and
//! SQLite's own state differ from then on, and what looks like a commit releases a savepoint inside a transaction that
//! nobody commits. So no connection is used again after BEGIN, COMMIT, ROLLBACK or a savepoint of it failed: it is
//! closed, which rolls back whatever it has open, and a new one is opened.

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

/// Takes as many pages as an upload of many files, so that a disk with room for less is not taken for one that has
/// room. The schema is the same afterwards, and the pages are free for others.
const PROBE: [&str; 3] = [
    "CREATE TABLE landfall_write_probe (bytes BLOB)",
    "INSERT INTO landfall_write_probe VALUES (zeroblob(262144))",
    "DROP TABLE landfall_write_probe",
];

#[derive(Debug)]
pub(super) struct SqliteWriter {
    options: SqliteConnectOptions,
    /// A pool of one, since SeaORM's transactions take their connection from a pool.
    current: Option<(SqlitePool, DatabaseConnection)>,
}

impl SqliteWriter {
    /// Opens the file, creating it when it is not there.
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
                // A transaction left open would make the next BEGIN a savepoint in it.
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

    /// Begins a transaction that has the write lock. It is SQLite that answers: inside a transaction it refuses BEGIN.
    pub(super) async fn begin(&mut self) -> Result<DatabaseTransaction, DbErr> {
        // IMMEDIATE takes the write lock at once: a lock upgraded later could not be waited for (SQLite, «BEGIN IMMEDIATE»).
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..Default::default()
        };
        self.connection().await?.begin_with_options(options).await
    }

    /// Closes the connection; the next transaction opens a new one. A disk that hangs is not waited for: the old
    /// connection ends when its statement does, and until then SQLite's own lock keeps the new one from writing.
    pub(super) async fn discard(&mut self) {
        if let Some((pool, _)) = self.current.take() {
            let _ = tokio::time::timeout(CONNECT_TIMEOUT, pool.close()).await;
        }
    }

    /// Writes something of no meaning and commits it.
    pub(super) async fn probe(&mut self) -> Result<(), DbErr> {
        let transaction = self.begin().await?;
        for statement in PROBE {
            transaction.execute_unprepared(statement).await?;
        }
        transaction.commit().await
    }
}
