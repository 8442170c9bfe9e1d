//! Failed files keep their bytes and can be retried; purged files keep their storage key.

use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // SQLite adds one column per statement.
        for (table, column) in [
            ("files", timestamp_with_time_zone_null("first_fault_at")),
            ("files", timestamp_with_time_zone_null("retryable_until")),
            ("files", timestamp_with_time_zone_null("purged_at")),
            ("batches", integer("reopened_count").default(0).to_owned()),
        ] {
            manager
                .alter_table(Table::alter().table(table).add_column(column).to_owned())
                .await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (table, column) in [
            ("batches", "reopened_count"),
            ("files", "purged_at"),
            ("files", "retryable_until"),
            ("files", "first_fault_at"),
        ] {
            manager
                .alter_table(Table::alter().table(table).drop_column(column).to_owned())
                .await?;
        }
        Ok(())
    }
}
