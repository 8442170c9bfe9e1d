//! What lists and the history of a file are read from: indexes in the order of the lists, and timestamps of finalize
//! runs.

use crate::create_indexes;
use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // SQLite adds one column per statement.
        for column in [
            timestamp_with_time_zone_null("claimed_at"),
            text_null("claimed_by"),
            timestamp_with_time_zone_null("landed_at"),
        ] {
            manager
                .alter_table(Table::alter().table("files").add_column(column).to_owned())
                .await?;
        }
        create_indexes(
            manager,
            &[
                "CREATE INDEX outbox_events_type ON outbox_events (event_type, id)",
                "CREATE INDEX outbox_events_about ON outbox_events (aggregate_id, id)",
                "CREATE INDEX outbox_events_created ON outbox_events (created_at, id)",
                "CREATE INDEX deliveries_endpoint ON deliveries (webhook_id, id)",
                // Replaced by outbox_events_about.
                "DROP INDEX outbox_events_aggregate",
            ],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        create_indexes(
            manager,
            &[
                "CREATE INDEX outbox_events_aggregate ON outbox_events (aggregate_id)",
                "DROP INDEX deliveries_endpoint",
                "DROP INDEX outbox_events_created",
                "DROP INDEX outbox_events_about",
                "DROP INDEX outbox_events_type",
            ],
        )
        .await?;
        for column in ["landed_at", "claimed_by", "claimed_at"] {
            manager
                .alter_table(Table::alter().table("files").drop_column(column).to_owned())
                .await?;
        }
        Ok(())
    }
}
