//! A migration that is in no release, so that tests can run a binary that knows it beside one that does not. It adds a
//! table, a row, a column and an index, as a release might.

use crate::runner::create_indexes_concurrently;
use sea_orm_migration::prelude::*;

const KNOWN: &str = "LANDFALL_FURTHER_MIGRATION";

/// The migrations of a release, plus these if this process is to know them.
pub(crate) fn with(mut known: Vec<Box<dyn MigrationTrait>>) -> Vec<Box<dyn MigrationTrait>> {
    if std::env::var_os(KNOWN).is_some() {
        known.push(Box::new(Tables));
        known.push(Box::new(Indexes));
    }
    known
}

struct Tables;

impl MigrationName for Tables {
    fn name(&self) -> &'static str {
        "m99990101_000001_further_tables"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Tables {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for statement in [
            "CREATE TABLE further (id BIGINT NOT NULL PRIMARY KEY)",
            "INSERT INTO further (id) VALUES (1)",
            "ALTER TABLE files ADD COLUMN further TEXT",
            "ALTER TABLE deliveries ADD COLUMN further BIGINT NOT NULL DEFAULT 0",
        ] {
            manager
                .get_connection()
                .execute_unprepared(statement)
                .await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for statement in [
            "ALTER TABLE deliveries DROP COLUMN further",
            "ALTER TABLE files DROP COLUMN further",
            "DROP TABLE further",
        ] {
            manager
                .get_connection()
                .execute_unprepared(statement)
                .await?;
        }
        Ok(())
    }
}

struct Indexes;

impl MigrationName for Indexes {
    fn name(&self) -> &'static str {
        "m99990101_000002_further_indexes"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Indexes {
    fn use_transaction(&self) -> Option<bool> {
        Some(false)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let indexes = [(
            "files_further",
            "ON files (further, id) WHERE further IS NOT NULL",
        )];
        create_indexes_concurrently(manager, &indexes).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let statement = "DROP INDEX files_further";
        manager
            .get_connection()
            .execute_unprepared(statement)
            .await
            .map(drop)
    }
}
