//! The database: one way to read and one way to write, over SQLite and PostgreSQL.
//!
//! Owns connections, durable commits and the schema's version. Decides nothing about what is written.
//!
//! **Architecture invariant.** Every write goes through [`Database::write`], a transaction that is durable when
//! it answers. On PostgreSQL it is a transaction of its own (the server groups their commits); on SQLite, which
//! has one writer, those who wait share one (see [`group`]).

mod connection_monitor;
mod group_commit;
mod health;
mod migrate;
mod postgres;
#[cfg(feature = "failpoints")]
mod query_observer;
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

/// Prepared statements that a connection to SQLite keeps. Those over several rows differ by how many they are over.
const STATEMENT_CACHE_CAPACITY: usize = 512;

/// Why the database could not be opened or is not fit for use.
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
        /// Of the file.
        path: Arc<Path>,
    },
}

impl Database {
    /// Connects, creating a SQLite file and its folder when they are not there.
    ///
    /// # Errors
    /// [`OpenError`], naming the setting that is wrong.
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
            },
            write: WritePath::Group {
                commits: GroupCommit::start(writer),
                path: path.into(),
            },
            activity: Arc::default(),
            last_uses: Arc::default(),
        })
    }

    /// For reading; what it sees is committed.
    #[must_use]
    pub fn read(&self) -> &DatabaseReader {
        &self.read
    }

    /// The kind of database.
    #[must_use]
    pub fn backend(&self) -> DbBackend {
        self.read.get_database_backend()
    }

    /// Runs `operation` in a transaction, durable once this returns `Ok`. An `Err` of the operation rolls all of
    /// it back. The operation must do nothing but talk to the database: others may be waiting behind it.
    ///
    /// # Errors
    /// The operation's own, or the database's when the transaction could not begin or commit.
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

    /// [`Database::write`] for an `operation` that may run more than once, which is cheaper where others wait too: on
    /// SQLite it needs no savepoint, and on PostgreSQL it is run again after a deadlock or a serialization failure. All
    /// but its last run are rolled back.
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

    /// Counts that are to be written soon (see `minutes`).
    pub(crate) fn activity(&self) -> &ActivityBuffer {
        &self.activity
    }

    /// Which tokens were used lately (see `tokens`).
    pub(crate) fn last_uses(&self) -> &LastUses {
        &self.last_uses
    }

    /// Asks the database something trivial.
    ///
    /// # Errors
    /// What stands between.
    pub async fn ping(&self) -> Result<(), DbErr> {
        self.read.ping().await
    }

    /// Why nothing can be written; none while the last write succeeded, as far as this process knows.
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

/// WAL lets readers go on beside the writer; FULL makes each commit wait for the disk (SQLite, «PRAGMA synchronous»).
fn durable(options: sqlx::sqlite::SqliteConnectOptions) -> sqlx::sqlite::SqliteConnectOptions {
    options
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(CONNECT_TIMEOUT)
        .statement_cache_capacity(STATEMENT_CACHE_CAPACITY)
}

/// The row of a select that finds one at most, as by a primary key. [`Select::one`] binds a LIMIT, and SQLite prepares a
/// statement anew whenever one is bound again.
pub(crate) async fn one_row<E: EntityTrait>(
    select: Select<E>,
    db: &impl ConnectionTrait,
) -> Result<Option<E::Model>, DbErr> {
    Ok(select.all(db).await?.into_iter().next())
}

impl Database {
    /// Closes every connection; clones of this are of no use afterwards.
    ///
    /// # Errors
    /// The database's.
    pub async fn close(&self) -> Result<(), DbErr> {
        self.read.inner().close_by_ref().await
    }

    /// Sets a clock by the database's, so that all machines agree on when a lease ends. SQLite has no clock but
    /// the machine's, and only one machine.
    ///
    /// # Errors
    /// The database's; the clock stays as it was.
    pub async fn set_clock(&self, clock: &Clock) -> Result<(), DbErr> {
        if self.backend() != DbBackend::Postgres {
            return Ok(());
        }
        let asked = Instant::now();
        let statement =
            Statement::from_string(DbBackend::Postgres, "SELECT clock_timestamp() AS now");
        let Some(row) = self.read.query_one_raw(statement).await? else {
            return Ok(());
        };
        let told: Timestamp = row.try_get("", "now")?;
        // The answer was made, on average, in the middle of the round trip.
        clock.set(later(told, asked.elapsed() / 2));
        Ok(())
    }
}
