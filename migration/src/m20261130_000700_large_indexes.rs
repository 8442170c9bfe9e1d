//! Indexes on tables that may be large already: by which purges find failed and deleted files, retention finds events,
//! and owners' keys and empty batches are counted.

use crate::{create_indexes, runner::create_indexes_concurrently};
use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const INDEXES: &[(&str, &str)] = &[
    (
        "files_retryable",
        "ON files (retryable_until) WHERE retryable_until IS NOT NULL",
    ),
    // `purged_at` is null in all of it: SQLite, which keeps no statistics here, takes an index for what it is by how many
    // columns are compared, and would sort all deleted files otherwise.
    (
        "files_unpurged",
        "ON files (purged_at, id) WHERE status IN ('failed', 'deleted') AND purged_at IS NULL AND retryable_until IS NULL \
         AND (staging_key IS NOT NULL OR storage_key IS NOT NULL)",
    ),
    (
        "outbox_events_delivered",
        "ON outbox_events (delivered_at, id) WHERE status = 'delivered'",
    ),
    (
        "outbox_events_failed",
        "ON outbox_events (created_at, id) WHERE status = 'failed'",
    ),
    (
        "idempotency_keys_owner",
        "ON idempotency_keys (owner, created_at) WHERE owner IS NOT NULL",
    ),
    (
        "batches_empty",
        "ON batches (owner, created_at) WHERE total_files = 0",
    ),
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    fn use_transaction(&self) -> Option<bool> {
        Some(false)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        create_indexes_concurrently(manager, INDEXES).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (name, _) in INDEXES {
            create_indexes(manager, &[&format!("DROP INDEX IF EXISTS {name}")]).await?;
        }
        Ok(())
    }
}
