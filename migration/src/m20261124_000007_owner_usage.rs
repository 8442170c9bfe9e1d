//! `owner_usage`, initialized with each owner's current usage.

use crate::drop_tables;
use sea_orm_migration::{prelude::*, schema::*, sea_orm::ConnectionTrait};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

/// Files that have or will have bytes, and partial uploads that no file counts yet.
const COUNT: &str = "INSERT INTO owner_usage (owner, shard, bytes) \
    SELECT owner, 0, SUM(size) FROM ( \
        SELECT owner, size_bytes AS size FROM files \
        WHERE owner IS NOT NULL AND status NOT IN ('failed', 'deleted') \
        UNION ALL \
        SELECT owner, total_size_bytes AS size FROM uploads \
        WHERE owner IS NOT NULL AND kind = 'partial' AND file_id = id \
        AND status IN ('init', 'in_progress', 'complete') AND total_size_bytes IS NOT NULL \
    ) AS counted GROUP BY owner";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("owner_usage")
                    .col(text("owner"))
                    .col(integer("shard"))
                    .col(big_integer("bytes"))
                    .primary_key(Index::create().col("owner").col("shard"))
                    .to_owned(),
            )
            .await?;
        let counted = manager.get_connection().execute_unprepared(COUNT).await;
        counted.map(drop)
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop_tables(manager, &["owner_usage"]).await
    }
}
