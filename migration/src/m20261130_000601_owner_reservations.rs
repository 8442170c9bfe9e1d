//! `owner_reservations`, and the size of owners' metadata, which counts from now on.

use crate::{create_indexes, drop_tables};
use sea_orm_migration::{prelude::*, schema::*, sea_orm::ConnectionTrait};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const INDEXES: &[&str] =
    &["CREATE INDEX owner_reservations_owner ON owner_reservations (owner, expires_at)"];

/// Added to one counter of each owner; deleting a file subtracts its share again.
const COUNT: &str = "INSERT INTO owner_usage (owner, shard, bytes) \
    SELECT owner, 0, SUM(LENGTH(CAST(metadata AS TEXT))) FROM files \
    WHERE owner IS NOT NULL AND status NOT IN ('failed', 'deleted') \
    AND CAST(metadata AS TEXT) <> '{}' GROUP BY owner \
    ON CONFLICT (owner, shard) DO UPDATE SET bytes = owner_usage.bytes + excluded.bytes";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("owner_reservations")
                    .col(uuid("id").primary_key())
                    .col(text("owner"))
                    .col(big_integer("bytes"))
                    .col(timestamp_with_time_zone("expires_at"))
                    .to_owned(),
            )
            .await?;
        create_indexes(manager, INDEXES).await?;
        let counted = manager.get_connection().execute_unprepared(COUNT).await;
        counted.map(drop)
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop_tables(manager, &["owner_reservations"]).await
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}
