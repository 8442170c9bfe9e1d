//! Schema migrations: safe from several processes at once, and repeatable after a kill at any moment. No process runs
//! on a schema that is behind; one that is ahead is accepted (see docs/upgrading.md).

use super::{
    Database, DatabaseReader, OpenError, Pooling, WritePath, sqlite_writer::SqliteWriter, transient,
};
use migration::{MigrationTrait, half_applied, runner};
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, Statement,
    TransactionTrait,
};
use std::{path::Path, time::Duration};

/// An arbitrary number that no other program on the same database uses.
const ADVISORY_LOCK: i64 = 0x6c61_6e64_6661_6c6c;

/// The pause between two attempts to acquire it.
const ADVISORY_LOCK_PAUSE: Duration = Duration::from_millis(100);

/// How long an ALTER TABLE may wait for current users of the table; later statements queue behind it.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '2s'";

/// How often a statement that did not get its lock is retried.
const LOCK_ATTEMPTS: u32 = 30;
const LOCK_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// A migration and whether the database has it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MigrationState {
    pub name: String,
    pub applied: bool,
}

#[derive(Clone, Copy)]
enum Direction {
    Up,
    Down,
}

impl Database {
    /// Applies missing migrations and returns their names. When several processes call this, one migrates and the
    /// others wait.
    ///
    /// # Errors
    /// [`OpenError::Migrate`] or [`OpenError::Lock`]; migrations applied before the error remain, and the next call
    /// continues.
    pub async fn migrate_up(&self) -> Result<Vec<String>, OpenError> {
        self.migrate(Direction::Up, async |db| runner::missing(db).await)
            .await
    }

    /// Reverts the newest `steps` migrations, including the data in their tables, and returns their names.
    ///
    /// # Errors
    /// [`OpenError::Ahead`] when a newer version has applied others; otherwise as [`Database::migrate_up`].
    pub async fn migrate_down(&self, steps: u32) -> Result<Vec<String>, OpenError> {
        let states = self.migrations().await?;
        let known = runner::known();
        let is_known = |name: &str| known.iter().any(|migration| migration.name() == name);
        let unknown = states.iter().filter(|state| !is_known(&state.name)).count();
        if unknown > 0 {
            return Err(OpenError::Ahead(unknown));
        }
        let steps = usize::try_from(steps).unwrap_or(usize::MAX);
        self.migrate(Direction::Down, async move |db| {
            let applied = runner::applied(db).await?;
            let mut newest = runner::known();
            newest.retain(|migration| applied.iter().any(|name| name == migration.name()));
            newest.reverse();
            newest.truncate(steps);
            Ok(newest)
        })
        .await
    }

    /// Returns every migration that this binary knows or the database has, oldest first.
    ///
    /// # Errors
    /// [`OpenError::Status`].
    pub async fn migrations(&self) -> Result<Vec<MigrationState>, OpenError> {
        let applied = runner::applied(self.read())
            .await
            .map_err(OpenError::Status)?;
        let mut states: Vec<_> = runner::known()
            .iter()
            .map(|known| MigrationState {
                name: known.name().to_owned(),
                applied: applied.iter().any(|name| name == known.name()),
            })
            .collect();
        for name in applied {
            if states.iter().all(|state| state.name != name) {
                states.push(MigrationState {
                    name,
                    applied: true,
                });
            }
        }
        Ok(states)
    }

    /// Fails if the database lacks a migration.
    ///
    /// # Errors
    /// [`OpenError::Behind`].
    pub async fn require_current(&self) -> Result<(), OpenError> {
        let missing = runner::missing(self.read()).await;
        match missing.map_err(OpenError::Status)?.len() {
            0 => Ok(()),
            missing => Err(OpenError::Behind(missing)),
        }
    }

    async fn migrate<F>(&self, direction: Direction, which: F) -> Result<Vec<String>, OpenError>
    where
        F: AsyncFnOnce(&DatabaseReader) -> Result<Vec<Box<dyn MigrationTrait>>, DbErr>,
    {
        match &self.write {
            WritePath::Pool(pool) if pool.pooling != Pooling::Direct => {
                // Indexes are built outside of transactions, and the lock must not be another client's.
                match which(self.read()).await.map_err(OpenError::Migrate)?.len() {
                    0 => Ok(Vec::new()),
                    _ => Err(OpenError::Pooler),
                }
            }
            WritePath::Pool(pool) => {
                let connection = pool.unlimited().await.map_err(OpenError::Migrate)?;
                let migrated = on_postgres(&connection, self.read(), direction, which).await;
                let _ = connection.close().await;
                migrated.map_err(OpenError::Migrate)
            }
            WritePath::Group { path, .. } => {
                let lock = lock(path.with_extension("migrate.lock").into()).await;
                let lock = lock.map_err(OpenError::Lock)?;
                let mut writer = SqliteWriter::open(path).await.map_err(OpenError::Migrate)?;
                let migrated = async {
                    let mut names = Vec::new();
                    for migration in which(self.read()).await? {
                        on_sqlite(&mut writer, direction, migration.as_ref()).await?;
                        names.push(migration.name().to_owned());
                    }
                    Ok(names)
                }
                .await;
                writer.discard().await;
                drop(lock);
                migrated.map_err(OpenError::Migrate)
            }
        }
    }
}

async fn lock(path: Box<Path>) -> std::io::Result<std::fs::File> {
    tokio::task::spawn_blocking(move || {
        let file = std::fs::File::create(&path)?;
        file.lock().map(|()| file)
    })
    .await
    .map_err(std::io::Error::other)
    .flatten()
}

async fn step(
    transaction: &DatabaseTransaction,
    direction: Direction,
    migration: &dyn MigrationTrait,
) -> Result<(), DbErr> {
    match direction {
        Direction::Up => runner::up(transaction, migration).await,
        Direction::Down => runner::down(transaction, migration).await,
    }
}

async fn on_sqlite(
    writer: &mut SqliteWriter,
    direction: Direction,
    migration: &dyn MigrationTrait,
) -> Result<(), DbErr> {
    let transaction = writer.begin().await?;
    let error = match step(&transaction, direction, migration).await {
        Ok(()) => return transaction.commit().await,
        Err(error) => error,
    };
    transaction.rollback().await?;
    if !matches!(direction, Direction::Up) || !half_applied::is_what_it_leaves(&error) {
        return Err(error);
    }
    let migration_name = migration.name();
    tracing::warn!(%error, migration_name, "this migration was interrupted in an earlier version; it is started again");
    let transaction = writer.begin().await?;
    half_applied::put_back(&transaction, migration).await?;
    step(&transaction, direction, migration).await?;
    transaction.commit().await
}

async fn on_postgres<F>(
    connection: &DatabaseConnection,
    reader: &DatabaseReader,
    direction: Direction,
    which: F,
) -> Result<Vec<String>, DbErr>
where
    F: AsyncFnOnce(&DatabaseReader) -> Result<Vec<Box<dyn MigrationTrait>>, DbErr>,
{
    let lock = only_migrator(connection).await?;
    let mut names = Vec::new();
    for migration in which(reader).await? {
        if runner::is_concurrent(DbBackend::Postgres, migration.as_ref()) {
            match direction {
                Direction::Up => runner::up_concurrently(connection, migration.as_ref()).await?,
                Direction::Down => {
                    runner::down_concurrently(connection, migration.as_ref()).await?;
                }
            }
        } else {
            with_lock_retries(connection, direction, migration.as_ref()).await?;
        }
        names.push(migration.name().to_owned());
    }
    lock.commit().await?;
    Ok(names)
}

/// Waits until no other process is migrating. The lock is held by a transaction, so it is released with the connection
/// however this process ends.
///
/// It is polled: a statement that waits for it holds a snapshot, and building an index concurrently waits for all
/// snapshots, so the migrating process and the waiting one would deadlock.
async fn only_migrator(connection: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
    let attempt = format!("SELECT pg_try_advisory_xact_lock({ADVISORY_LOCK}) AS is_locked");
    loop {
        let transaction = connection.begin().await?;
        let attempt = Statement::from_string(DbBackend::Postgres, &attempt);
        let answer = transaction.query_one_raw(attempt).await?;
        let is_locked = answer.map(|row| row.try_get("", "is_locked")).transpose()?;
        if is_locked == Some(true) {
            return Ok(transaction);
        }
        transaction.rollback().await?;
        tokio::time::sleep(ADVISORY_LOCK_PAUSE).await;
    }
}

/// Runs a statement on tables that are in use. A statement that has to wait too long for a lock gives way and is
/// retried.
async fn with_lock_retries(
    connection: &DatabaseConnection,
    direction: Direction,
    migration: &dyn MigrationTrait,
) -> Result<(), DbErr> {
    let mut attempt = 1;
    loop {
        let transaction = connection.begin().await?;
        let stepped = async {
            transaction.execute_unprepared(LOCK_TIMEOUT).await?;
            step(&transaction, direction, migration).await
        }
        .await;
        match stepped {
            Ok(()) => return transaction.commit().await,
            Err(error) if attempt < LOCK_ATTEMPTS && transient::is_lock_timeout(&error) => {
                transaction.rollback().await?;
                attempt += 1;
                tokio::time::sleep(LOCK_RETRY_INTERVAL).await;
            }
            Err(error) => return Err(error),
        }
    }
}
