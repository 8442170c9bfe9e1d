//! Landfall's schema, as reversible, additive migrations that mean the same on SQLite and PostgreSQL.
//!
//! A release adds migrations and never edits released ones: an older binary must keep working on a newer schema while
//! processes are replaced one by one (docs/upgrading.md).
//!
//! An index on a table that may be large belongs in a migration of its own whose `use_transaction` is `Some(false)`,
//! created by `runner::create_indexes_concurrently`; otherwise PostgreSQL blocks writers while it is built.

#[cfg(feature = "failpoints")]
mod further;
pub mod half_applied;

mod m20261124_000001_files;
mod m20261124_000002_outbox;
mod m20261124_000003_uploads;
mod m20261124_000004_access;
mod m20261124_000005_records;
mod m20261124_000006_expiring;
mod m20261124_000007_owner_usage;
mod m20261124_000008_staging_probes;
mod m20261124_000009_staged_sha256;
mod m20261124_000010_sessions;
mod m20261124_000020_lists;
mod m20261130_000200_upload_segments;
mod m20261130_000300_failed_files;
mod m20261130_000301_suspects_and_key_owners;
mod m20261130_000401_installation;
mod m20261130_000402_cleanup;
mod m20261130_000500_secret_key_holders;
mod m20261130_000601_owner_reservations;
mod m20261130_000602_bounded_rows;
mod m20261130_000700_large_indexes;
mod m20261130_000800_upload_links;
mod m20261130_000900_webhook_headers;
pub mod runner;

pub use sea_orm_migration::prelude::{MigrationName, MigrationTrait, MigratorTrait, SchemaManager};
use sea_orm_migration::{prelude::*, sea_orm::ConnectionTrait};

/// All migrations, oldest first.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261124_000001_files::Migration),
            Box::new(m20261124_000002_outbox::Migration),
            Box::new(m20261124_000003_uploads::Migration),
            Box::new(m20261124_000004_access::Migration),
            Box::new(m20261124_000005_records::Migration),
            Box::new(m20261124_000006_expiring::Migration),
            Box::new(m20261124_000007_owner_usage::Migration),
            Box::new(m20261124_000008_staging_probes::Migration),
            Box::new(m20261124_000009_staged_sha256::Migration),
            Box::new(m20261124_000010_sessions::Migration),
            Box::new(m20261124_000020_lists::Migration),
            Box::new(m20261130_000200_upload_segments::Migration),
            Box::new(m20261130_000300_failed_files::Migration),
            Box::new(m20261130_000301_suspects_and_key_owners::Migration),
            Box::new(m20261130_000401_installation::Migration),
            Box::new(m20261130_000500_secret_key_holders::Migration),
            Box::new(m20261130_000402_cleanup::Migration),
            Box::new(m20261130_000601_owner_reservations::Migration),
            Box::new(m20261130_000602_bounded_rows::Migration),
            Box::new(m20261130_000700_large_indexes::Migration),
            Box::new(m20261130_000900_webhook_headers::Migration),
            Box::new(m20261130_000800_upload_links::Migration),
        ]
    }
}

/// Creates or drops indexes with SQL: the schema builder has no partial indexes, and their syntax is the same on both
/// databases.
async fn create_indexes(manager: &SchemaManager<'_>, statements: &[&str]) -> Result<(), DbErr> {
    for statement in statements {
        manager
            .get_connection()
            .execute_unprepared(statement)
            .await?;
    }
    Ok(())
}

async fn drop_tables(manager: &SchemaManager<'_>, tables: &[&'static str]) -> Result<(), DbErr> {
    for table in tables {
        manager
            .drop_table(Table::drop().table(*table).to_owned())
            .await?;
    }
    Ok(())
}
