//! Restores a SQLite schema that an earlier version left in the middle of a migration.
//!
//! Those versions ran each statement of a migration separately, so a kill between two of them left a schema that no
//! later start could migrate. The schema before that migration is known, because the migrations before it produce it.
//! Whatever the interrupted migration added is removed, and what it dropped is created again; then it can be applied as
//! a whole.

use crate::{MigrationTrait, SchemaManager, runner};
use sea_orm_migration::sea_orm::{
    ConnectionTrait, Database, DatabaseTransaction, DbBackend, DbErr, Statement,
};
use std::collections::BTreeMap;

/// Tables and indexes by their names.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shape {
    /// Tables with their columns.
    tables: BTreeMap<String, Vec<String>>,
    /// Indexes with the SQL that creates them.
    indexes: BTreeMap<String, String>,
}

/// Whether this is SQLite's error when a statement of a migration has already run.
#[must_use]
pub fn is_what_it_leaves(error: &DbErr) -> bool {
    let text = error.to_string();
    ["already exists", "duplicate column name", "no such index"]
        .iter()
        .any(|said| text.contains(said))
}

/// Restores the schema as all migrations before `migration` leave it.
///
/// # Errors
/// Database errors, and when a table that the migration creates has rows, which an interruption cannot leave.
pub async fn put_back(
    transaction: &DatabaseTransaction,
    migration: &dyn MigrationTrait,
) -> Result<(), DbErr> {
    let (before, after) = shapes_around(migration.name()).await?;
    let found = shape(transaction).await?;
    for index in found.indexes.keys() {
        if after.indexes.contains_key(index) && !before.indexes.contains_key(index) {
            let drop_it = format!("DROP INDEX \"{index}\"");
            transaction.execute_unprepared(&drop_it).await?;
        }
    }
    for (table, columns) in &found.tables {
        match (before.tables.get(table), after.tables.get(table)) {
            (None, Some(_)) => drop_empty(transaction, table).await?,
            (Some(before), Some(after)) => {
                let added = columns
                    .iter()
                    .filter(|column| after.contains(column) && !before.contains(column));
                for column in added {
                    let drop_it = format!("ALTER TABLE \"{table}\" DROP COLUMN \"{column}\"");
                    transaction.execute_unprepared(&drop_it).await?;
                }
            }
            _ => {}
        }
    }
    for (index, create) in &before.indexes {
        if !found.indexes.contains_key(index) {
            transaction.execute_unprepared(create).await?;
        }
    }
    Ok(())
}

async fn drop_empty(transaction: &DatabaseTransaction, table: &str) -> Result<(), DbErr> {
    let rows = format!("SELECT 1 FROM \"{table}\" LIMIT 1");
    let rows = Statement::from_string(DbBackend::Sqlite, rows);
    if transaction.query_one_raw(rows).await?.is_some() {
        return Err(DbErr::Migration(format!(
            "the table {table} has rows, and no record of the migration that creates it"
        )));
    }
    let drop_it = format!("DROP TABLE \"{table}\"");
    transaction.execute_unprepared(&drop_it).await.map(drop)
}

/// Returns the schema before and after a migration, from an in-memory database.
async fn shapes_around(name: &str) -> Result<(Shape, Shape), DbErr> {
    let mut options = sea_orm_migration::sea_orm::ConnectOptions::new("sqlite::memory:");
    options.max_connections(1).sqlx_logging(false);
    let reference = Database::connect(options).await?;
    let mut before = Shape::default();
    for migration in runner::known() {
        if migration.name() == name {
            before = shape(&reference).await?;
        }
        migration.up(&SchemaManager::new(&reference)).await?;
        if migration.name() == name {
            break;
        }
    }
    let after = shape(&reference).await?;
    reference.close().await?;
    Ok((before, after))
}

async fn shape(db: &impl ConnectionTrait) -> Result<Shape, DbErr> {
    let objects = "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' \
                   AND name <> 'seaql_migrations'";
    let objects = Statement::from_string(DbBackend::Sqlite, objects);
    let mut found = Shape::default();
    for object in db.query_all_raw(objects).await? {
        let (kind, name): (String, String) =
            (object.try_get("", "type")?, object.try_get("", "name")?);
        if kind == "index" {
            found.indexes.insert(name, object.try_get("", "sql")?);
        } else {
            let columns = Statement::from_sql_and_values(
                DbBackend::Sqlite,
                "SELECT name FROM pragma_table_info($1)",
                [name.clone().into()],
            );
            let columns = db.query_all_raw(columns).await?;
            let columns: Result<_, _> = columns.iter().map(|row| row.try_get("", "name")).collect();
            found.tables.insert(name, columns?);
        }
    }
    Ok(found)
}
