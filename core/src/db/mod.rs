//! The database: one way to read and one way to write, over SQLite and PostgreSQL.
//!
//! Owns connections, durable commits and the schema version. Knows nothing about what is written.
//!
//! **Architecture invariant.** Every write goes through [`Database::write`], a transaction that is durable when the
//! call returns. On PostgreSQL each write has its own transaction (the server groups the commits); on SQLite, which has
//! a single writer, waiting writes share one (see `group_commit`).

mod connection_monitor;
mod group_commit;
mod health;
mod migrate;
mod pooler;
mod postgres;
#[cfg(feature = "failpoints")]
mod query_observer;
pub(crate) mod queue;
mod reader;
mod sqlite_writer;
mod transient;

use crate::{
    activity::ActivityBuffer,
    clock::{Clock, later},
    last_used::LastUses,
};
use entity::Timestamp;
use futures::future::BoxFuture;
use group_commit::GroupCommit;
pub(crate) use group_commit::panicked;
pub use health::WriteFault;
pub use pooler::Pooling;
use postgres::Postgres;
pub use reader::DatabaseReader;
use sea_orm::{
    ConnectOptions, ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, EntityTrait, Select,
    Statement,
    sqlx::{
        self,
        sqlite::{SqliteJournalMode, SqliteSynchronous},
    },
};
use secrecy::{ExposeSecret, SecretString};
use sqlite_writer::SqliteWriter;
use std::{
    error::Error,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
pub(crate) use transient::copy;
pub use transient::{is_full, is_transient};

/// How long a statement may wait for a connection, and SQLite for its lock.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Capacity of a SQLite connection's statement cache. Statements over several rows differ in their number of rows.
const STATEMENT_CACHE_CAPACITY: usize = 512;

/// Why the database could not be opened or cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("database.url must begin with sqlite:// or postgres://")]
    UnknownKind,
    #[error("cannot create the folder {0} for the database")]
    Folder(std::path::PathBuf, #[source] std::io::Error),
    #[error("cannot reach the database (database.url)")]
    Connect(#[source] DbErr),
    #[error("cannot read which migrations the database has")]
    Status(#[source] DbErr),
    #[error(
        "the database has {0} migration(s) of a newer version, and only that version can take migrations back"
    )]
    Ahead(usize),
    #[error("the database is behind by {0} migration(s); run `landfall migrate up` first")]
    Behind(usize),
    #[error(
        "database.url leads to a connection pooler in transaction mode; to migrate, set it to PostgreSQL itself for this command"
    )]
    Pooler,
    #[error("migrating the database failed")]
    Migrate(#[source] DbErr),
    #[error("cannot lock the database for migrating")]
    Lock(#[source] std::io::Error),
}

/// The database of an installation; cheap to clone.
#[derive(Clone, Debug)]
pub struct Database {
    read: DatabaseReader,
    write: WritePath,
    activity: Arc<ActivityBuffer>,
    last_uses: Arc<LastUses>,
}

#[derive(Clone, Debug)]
enum WritePath {
    Pool(Arc<Postgres>),
    Group {
        commits: GroupCommit,
        /// Of the database file.
        path: Arc<Path>,
    },
}

impl Database {
    /// Connects; creates a missing SQLite file and its folder.
    ///
    /// # Errors
    /// [`OpenError`], which names the setting at fault.
    pub async fn open(url: &SecretString, max_connections: u32) -> Result<Self, OpenError> {
        let text = url.expose_secret();
        if let Some(path) = text.strip_prefix("sqlite://") {
            let path = Path::new(path.split('?').next().unwrap_or(path));
            Self::open_sqlite(path, max_connections).await
        } else if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            let postgres = Postgres::open(text, max_connections)
                .await
                .map_err(OpenError::Connect)?;
            Ok(Self {
                read: DatabaseReader {
                    connection: postgres.pool.clone(),
                    monitor: Some(Arc::clone(&postgres.monitor)),
                    pooling: postgres.pooling,
                },
                write: WritePath::Pool(Arc::new(postgres)),
                activity: Arc::default(),
                last_uses: Arc::default(),
            })
        } else {
            Err(OpenError::UnknownKind)
        }
    }

    async fn open_sqlite(path: &Path, max_connections: u32) -> Result<Self, OpenError> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|error| OpenError::Folder(folder.into(), error))?;
        }
        let writer = SqliteWriter::open(path).await.map_err(OpenError::Connect)?;
        let url = format!("sqlite://{}?mode=rwc", path.display());
        let mut options = options(&url, max_connections);
        options.map_sqlx_sqlite_opts(durable);
        let connection = sea_orm::Database::connect(options)
            .await
            .map_err(OpenError::Connect)?;
        Ok(Self {
            read: DatabaseReader {
                connection,
                monitor: None,
                pooling: Pooling::Direct,
            },
            write: WritePath::Group {
                commits: GroupCommit::start(writer),
                path: path.into(),
            },
            activity: Arc::default(),
            last_uses: Arc::default(),
        })
    }

    /// A handle for reading committed data.
    #[must_use]
    pub fn read(&self) -> &DatabaseReader {
        &self.read
    }

    /// The database backend.
    #[must_use]
    pub fn backend(&self) -> DbBackend {
        self.read.get_database_backend()
    }

    /// Runs `operation` in a transaction that is durable once this returns `Ok`. If the operation returns `Err`, all of
    /// it is rolled back. The operation must only use the database, because other writes may be waiting behind it.
    ///
    /// # Errors
    /// The operation's error, or a database error when the transaction could not begin or commit.
    pub async fn write<T, E, F>(&self, operation: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DbErr> + Error + Send + 'static,
        F: for<'c> FnOnce(&'c DatabaseTransaction) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
    {
        match &self.write {
            WritePath::Group { commits, .. } => commits.run(operation).await,
            WritePath::Pool(postgres) => postgres.write(operation).await,
        }
    }

    /// [`Database::write`] for an `operation` that may run more than once, which is cheaper under load: on SQLite it
    /// needs no savepoint, and on PostgreSQL it is retried after a deadlock or a serialization failure. All runs except
    /// the last are rolled back.
    ///
    /// # Errors
    /// As [`Database::write`].
    pub async fn write_repeatable<T, E, F>(&self, operation: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DbErr> + Error + Send + 'static,
        F: for<'c> FnMut(&'c DatabaseTransaction) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
    {
        match &self.write {
            WritePath::Group { commits, .. } => commits.run_repeatable(operation).await,
            WritePath::Pool(postgres) => postgres.write_repeatable(operation).await,
        }
    }

    /// Counts that will be written soon (see [`crate::activity`]).
    pub(crate) fn activity(&self) -> &ActivityBuffer {
        &self.activity
    }

    /// When tokens were last used (see [`crate::tokens`]).
    pub(crate) fn last_uses(&self) -> &LastUses {
        &self.last_uses
    }

    /// Runs a trivial query.
    ///
    /// # Errors
    /// Why the database cannot be reached.
    pub async fn ping(&self) -> Result<(), DbErr> {
        self.read.ping().await
    }

    /// How this process is connected to the database.
    #[must_use]
    pub fn pooling(&self) -> Pooling {
        self.read.pooling
    }

    /// Whether the database is known not to respond. The log has a line about it, so that the calls that fail meanwhile
    /// need none.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match &self.write {
            WritePath::Pool(postgres) => postgres.monitor.is_unreachable(),
            WritePath::Group { .. } => false,
        }
    }

    /// Returns why the database is not writable, or `None` if the last write succeeded, as far as this process knows.
    #[must_use]
    pub fn write_fault(&self) -> Option<WriteFault> {
        match &self.write {
            WritePath::Pool(postgres) => postgres.monitor.health.fault(),
            WritePath::Group { commits, .. } => commits.fault(),
        }
    }
}

fn options(url: &str, connections: u32) -> ConnectOptions {
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(connections)
        .acquire_timeout(CONNECT_TIMEOUT)
        .test_before_acquire(false)
        .sqlx_logging(false);
    options
}

/// WAL lets readers proceed alongside the writer; FULL makes each commit wait for the disk (SQLite, "PRAGMA
/// synchronous").
fn durable(options: sqlx::sqlite::SqliteConnectOptions) -> sqlx::sqlite::SqliteConnectOptions {
    options
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(CONNECT_TIMEOUT)
        .statement_cache_capacity(STATEMENT_CACHE_CAPACITY)
}

/// Returns the row of a select that matches at most one, for example by primary key. [`Select::one`] binds a LIMIT, and
/// SQLite re-prepares a statement whenever a LIMIT is bound again.
pub(crate) async fn one_row<E: EntityTrait>(
    select: Select<E>,
    db: &impl ConnectionTrait,
) -> Result<Option<E::Model>, DbErr> {
    Ok(select.all(db).await?.into_iter().next())
}

impl Database {
    /// Closes all connections; other clones cannot be used afterwards.
    ///
    /// # Errors
    /// Database errors.
    pub async fn close(&self) -> Result<(), DbErr> {
        self.read.inner().close_by_ref().await
    }

    /// Sets `clock` to the database's time, so that all machines agree on when a lease expires. SQLite only has the
    /// clock of its one machine.
    ///
    /// # Errors
    /// Database errors; the clock is unchanged.
    pub async fn set_clock(&self, clock: &Clock) -> Result<(), DbErr> {
        if self.backend() != DbBackend::Postgres {
            return Ok(());
        }
        let sent_at = Instant::now();
        let statement =
            Statement::from_string(DbBackend::Postgres, "SELECT clock_timestamp() AS now");
        let Some(row) = self.read.query_one_raw(statement).await? else {
            return Ok(());
        };
        let server_time: Timestamp = row.try_get("", "now")?;
        // On average, the server read its clock halfway through the round trip.
        clock.set(later(server_time, sent_at.elapsed() / 2));
        Ok(())
    }
}
