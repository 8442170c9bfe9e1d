//! The schema's version: migrating is safe from several processes at once, and no process works on a schema that is behind.

use super::{Database, OpenError, WritePath};
use migration::{Migrator, MigratorTrait};
use sea_orm::{ConnectionTrait, DatabaseConnection, TransactionTrait};

/// Any number will do, as long as no other program on the same database takes it.
const ADVISORY_LOCK: i64 = 0x6c61_6e64_6661_6c6c;

/// One migration and whether the database has it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct MigrationState {
    pub name: String,
    pub applied: bool,
}

impl Database {
    /// Applies what is missing; of several processes one does it and the others wait.
    ///
    /// # Errors
    /// [`OpenError::Migrate`] or [`OpenError::Lock`]; what was applied before stays.
    pub async fn migrate_up(&self) -> Result<(), OpenError> {
        self.locked(async |connection| {
            Migrator::up(connection, None)
                .await
                .map_err(OpenError::Migrate)
        })
        .await
    }

    /// Takes back the newest `steps` migrations, with the data in their tables.
    ///
    /// # Errors
    /// As [`Database::migrate_up`].
    pub async fn migrate_down(&self, steps: u32) -> Result<(), OpenError> {
        self.locked(async move |connection| {
            Migrator::down(connection, Some(steps))
                .await
                .map_err(OpenError::Migrate)
        })
        .await
    }

    /// Every migration this binary knows, oldest first.
    ///
    /// # Errors
    /// [`OpenError::Status`].
    pub async fn migrations(&self) -> Result<Vec<MigrationState>, OpenError> {
        let pending = Migrator::get_pending_migrations_read_only(self.read())
            .await
            .map_err(OpenError::Status)?;
        let pending: Vec<&str> = pending.iter().map(|migration| migration.name()).collect();
        Ok(Migrator::migrations()
            .iter()
            .map(|known| MigrationState {
                name: known.name().to_owned(),
                applied: !pending.contains(&known.name()),
            })
            .collect())
    }

    /// Refuses a database that lacks a migration.
    ///
    /// # Errors
    /// [`OpenError::Behind`].
    pub async fn require_current(&self) -> Result<(), OpenError> {
        match self
            .migrations()
            .await?
            .iter()
            .filter(|state| !state.applied)
            .count()
        {
            0 => Ok(()),
            missing => Err(OpenError::Behind(missing)),
        }
    }

    async fn locked<F>(&self, migrate: F) -> Result<(), OpenError>
    where
        F: AsyncFnOnce(&DatabaseConnection) -> Result<(), OpenError>,
    {
        match (&self.write, &self.migration_lock) {
            (WritePath::Pool(pool), _) => {
                // Held by a transaction, so that it goes with its connection however this process ends.
                let lock = pool.begin().await.map_err(OpenError::Migrate)?;
                lock.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))
                    .await
                    .map_err(OpenError::Migrate)?;
                migrate(pool).await?;
                lock.commit().await.map_err(OpenError::Migrate)
            }
            (WritePath::Group(_), Some(path)) => {
                let path = path.clone();
                let lock = tokio::task::spawn_blocking(move || {
                    let file = std::fs::File::create(&path)?;
                    file.lock().map(|()| file)
                })
                .await
                .map_err(std::io::Error::other)
                .flatten()
                .map_err(OpenError::Lock)?;
                migrate(self.read()).await?;
                drop(lock);
                Ok(())
            }
            (WritePath::Group(_), None) => unreachable!("a SQLite database has a lock file"),
        }
    }
}
