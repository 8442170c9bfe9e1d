//! `cleanup_candidates`, and the indexes with which events past their retention are found.

use crate::{create_indexes, drop_tables};
use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("cleanup_candidates")
                    .if_not_exists()
                    .col(string_len("place", 16))
                    .col(text("name"))
                    .col(timestamp_with_time_zone("first_seen_at"))
                    .col(timestamp_with_time_zone("last_seen_at"))
                    .primary_key(Index::create().col("place").col("name"))
                    .to_owned(),
            )
            .await?;
        create_indexes(
            manager,
            &[
                "CREATE INDEX IF NOT EXISTS outbox_events_delivered ON outbox_events (delivered_at, id) \
                 WHERE status = 'delivered'",
                "CREATE INDEX IF NOT EXISTS outbox_events_failed ON outbox_events (created_at, id) \
                 WHERE status = 'failed'",
            ],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        create_indexes(
            manager,
            &[
                "DROP INDEX outbox_events_delivered",
                "DROP INDEX outbox_events_failed",
            ],
        )
        .await?;
        drop_tables(manager, &["cleanup_candidates"]).await
    }
}
