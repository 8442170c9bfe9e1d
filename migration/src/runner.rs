//! Applies and reverts migrations one at a time, each together with its record, so that an interrupted run can be
//! continued.
//!
//! Also handles migrations that this binary lacks: a newer binary may have applied them, and this one runs on top of
//! them (see docs/upgrading.md).

use crate::{MigrationTrait, Migrator, MigratorTrait, SchemaManager};
use sea_orm_migration::{
    SchemaManagerConnection,
    sea_orm::{
        ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, Statement,
    },
};
use std::time::{SystemTime, UNIX_EPOCH};

/// The name used by SeaORM's own migrator.
const RECORDS: &str = "seaql_migrations";

/// All migrations this binary knows, oldest first.
#[must_use]
pub fn known() -> Vec<Box<dyn MigrationTrait>> {
    let known = Migrator::migrations();
    #[cfg(feature = "failpoints")]
    let known = crate::further::with(known);
    known
}

/// Returns the names of the migrations that a database has, oldest first; creates nothing.
///
/// # Errors
/// Database errors.
pub async fn applied(db: &impl ConnectionTrait) -> Result<Vec<String>, DbErr> {
    let backend = db.get_database_backend();
    let there = match backend {
        DbBackend::Postgres => {
            "SELECT 1 FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'seaql_migrations'"
        }
        _ => "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'seaql_migrations'",
    };
    let there = Statement::from_string(backend, there);
    if db.query_one_raw(there).await?.is_none() {
        return Ok(Vec::new());
    }
    let names = format!("SELECT version FROM {RECORDS} ORDER BY version");
    let rows = db
        .query_all_raw(Statement::from_string(backend, names))
        .await?;
    rows.iter().map(|row| row.try_get("", "version")).collect()
}

/// Returns the migrations that this binary knows and the database lacks, oldest first.
///
/// # Errors
/// Database errors.
pub async fn missing(db: &impl ConnectionTrait) -> Result<Vec<Box<dyn MigrationTrait>>, DbErr> {
    let applied = applied(db).await?;
    let mut known = known();
    known.retain(|migration| !applied.iter().any(|name| name == migration.name()));
    Ok(known)
}

/// Applies one migration and records it, in this transaction.
///
/// # Errors
/// Database errors; the transaction must then be rolled back.
pub async fn up(
    transaction: &DatabaseTransaction,
    migration: &dyn MigrationTrait,
) -> Result<(), DbErr> {
    record_table(transaction).await?;
    migration.up(&SchemaManager::new(transaction)).await?;
    record(transaction, migration.name()).await
}

/// Reverts one migration and deletes its record, in this transaction.
///
/// # Errors
/// Database errors; the transaction must then be rolled back.
pub async fn down(
    transaction: &DatabaseTransaction,
    migration: &dyn MigrationTrait,
) -> Result<(), DbErr> {
    migration.down(&SchemaManager::new(transaction)).await?;
    forget(transaction, migration.name()).await
}

/// Whether PostgreSQL runs the migration outside a transaction: it builds indexes concurrently, and may be repeated
/// after any of its statements.
#[must_use]
pub fn is_concurrent(backend: DbBackend, migration: &dyn MigrationTrait) -> bool {
    backend == DbBackend::Postgres && migration.use_transaction() == Some(false)
}

/// Applies one concurrent migration and records it.
///
/// # Errors
/// Database errors; the call may be repeated.
pub async fn up_concurrently(
    connection: &DatabaseConnection,
    migration: &dyn MigrationTrait,
) -> Result<(), DbErr> {
    record_table(connection).await?;
    migration.up(&SchemaManager::new(connection)).await?;
    record(connection, migration.name()).await
}

/// Reverts one concurrent migration and deletes its record.
///
/// # Errors
/// Database errors; the call may be repeated.
pub async fn down_concurrently(
    connection: &DatabaseConnection,
    migration: &dyn MigrationTrait,
) -> Result<(), DbErr> {
    migration.down(&SchemaManager::new(connection)).await?;
    forget(connection, migration.name()).await
}

async fn record_table(db: &impl ConnectionTrait) -> Result<(), DbErr> {
    if !applied(db).await?.is_empty() {
        return Ok(());
    }
    // The same format as SeaORM's own table, which earlier versions created.
    let create = format!(
        "CREATE TABLE IF NOT EXISTS {RECORDS} (version varchar NOT NULL PRIMARY KEY, applied_at bigint NOT NULL)"
    );
    db.execute_unprepared(&create).await.map(drop)
}

async fn record(db: &impl ConnectionTrait, name: &str) -> Result<(), DbErr> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = i64::try_from(now.unwrap_or_default().as_secs()).unwrap_or(i64::MAX);
    let insert = format!(
        "INSERT INTO {RECORDS} (version, applied_at) VALUES ($1, $2) ON CONFLICT DO NOTHING"
    );
    let values = [name.into(), now.into()];
    let insert = Statement::from_sql_and_values(db.get_database_backend(), insert, values);
    db.execute_raw(insert).await.map(drop)
}

async fn forget(db: &impl ConnectionTrait, name: &str) -> Result<(), DbErr> {
    let delete = format!("DELETE FROM {RECORDS} WHERE version = $1");
    let backend = db.get_database_backend();
    let delete = Statement::from_sql_and_values(backend, delete, [name.into()]);
    db.execute_raw(delete).await.map(drop)
}

/// Creates indexes on tables that may be large, without blocking writers where the database supports it. For migrations
/// whose `use_transaction` is `Some(false)`; `statements` are `(name, what follows the name)`.
///
/// # Errors
/// Database errors; the call may be repeated, and replaces an index that an interrupted build left invalid.
pub(crate) async fn create_indexes_concurrently(
    manager: &SchemaManager<'_>,
    indexes: &[(&str, &str)],
) -> Result<(), DbErr> {
    let db = manager.get_connection();
    for (name, on) in indexes {
        if db.get_database_backend() != DbBackend::Postgres {
            let create = format!("CREATE INDEX IF NOT EXISTS {name} {on}");
            db.execute_unprepared(&create).await?;
            continue;
        }
        drop_invalid(db, name).await?;
        if !has_index(db, name).await? {
            let create = format!("CREATE INDEX CONCURRENTLY {name} {on}");
            db.execute_unprepared(&create).await?;
        }
    }
    Ok(())
}

async fn drop_invalid(db: &SchemaManagerConnection<'_>, name: &str) -> Result<(), DbErr> {
    let invalid = "SELECT 1 FROM pg_index WHERE indexrelid = to_regclass($1) AND NOT indisvalid";
    let invalid =
        Statement::from_sql_and_values(DbBackend::Postgres, invalid, [name.to_owned().into()]);
    if db.query_one_raw(invalid).await?.is_some() {
        let drop_it = format!("DROP INDEX CONCURRENTLY {name}");
        db.execute_unprepared(&drop_it).await?;
    }
    Ok(())
}

async fn has_index(db: &SchemaManagerConnection<'_>, name: &str) -> Result<bool, DbErr> {
    let there = "SELECT 1 WHERE to_regclass($1) IS NOT NULL";
    let there =
        Statement::from_sql_and_values(DbBackend::Postgres, there, [name.to_owned().into()]);
    Ok(db.query_one_raw(there).await?.is_some())
}
