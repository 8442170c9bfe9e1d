//! `files` and `batches`.

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
                    .table("batches")
                    .col(uuid("id").primary_key())
                    .col(text_null("owner"))
                    .col(string_len("status", 16))
                    .col(json_binary("metadata"))
                    .col(big_integer("total_files"))
                    .col(big_integer("stored_count"))
                    .col(big_integer("failed_count"))
                    .col(timestamp_with_time_zone("created_at"))
                    .col(timestamp_with_time_zone("updated_at"))
                    .col(timestamp_with_time_zone_null("finalized_at"))
                    .col(timestamp_with_time_zone_null("completed_at"))
                    .to_owned(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("files")
                    .col(uuid("id").primary_key())
                    .col(text_null("owner"))
                    .col(string_len("status", 16))
                    .col(text("original_filename"))
                    .col(text("search_name"))
                    .col(text("content_type"))
                    .col(big_integer("size_bytes"))
                    .col(string_len_null("sha256", 64))
                    .col(string_len_null("declared_sha256", 64))
                    .col(json_binary("metadata"))
                    .col(uuid_null("batch_id"))
                    .col(text_null("staging_key"))
                    .col(text_null("storage_key"))
                    .col(integer("finalize_attempts"))
                    .col(integer("finalize_crashes"))
                    .col(timestamp_with_time_zone_null("next_attempt_at"))
                    .col(text_null("lease_owner"))
                    .col(timestamp_with_time_zone_null("lease_expires_at"))
                    .col(text_null("error_code"))
                    .col(text_null("error_message"))
                    .col(text_null("traceparent"))
                    .col(timestamp_with_time_zone("created_at"))
                    .col(timestamp_with_time_zone("updated_at"))
                    .col(timestamp_with_time_zone_null("staged_at"))
                    .col(timestamp_with_time_zone_null("stored_at"))
                    .col(timestamp_with_time_zone_null("expires_at"))
                    .col(timestamp_with_time_zone_null("expiring_announced_at"))
                    .col(timestamp_with_time_zone_null("deleted_at"))
                    .to_owned(),
            )
            .await?;
        create_indexes(
            manager,
            &[
                "CREATE UNIQUE INDEX files_storage_key ON files (storage_key) WHERE storage_key IS NOT NULL",
                "CREATE INDEX files_status ON files (status, id)",
                "CREATE INDEX files_owner ON files (owner, id) WHERE owner IS NOT NULL",
                "CREATE INDEX files_batch ON files (batch_id, id) WHERE batch_id IS NOT NULL",
                "CREATE INDEX files_sha256 ON files (sha256, id) WHERE sha256 IS NOT NULL",
                "CREATE INDEX files_expires ON files (expires_at) WHERE expires_at IS NOT NULL AND status = 'stored'",
                "CREATE INDEX files_litter ON files (id) WHERE status IN ('failed', 'deleted') \
                 AND (staging_key IS NOT NULL OR storage_key IS NOT NULL)",
                "CREATE INDEX batches_open ON batches (id) WHERE finalized_at IS NOT NULL AND completed_at IS NULL",
            ],
        )
        .await?;
        // Names are compared byte by byte, so that the beginning of a name is a range of the index in every locale.
        let names = match manager.get_database_backend() {
            sea_orm_migration::sea_orm::DbBackend::Postgres => {
                "CREATE INDEX files_search_name ON files (search_name COLLATE \"C\", id)"
            }
            _ => "CREATE INDEX files_search_name ON files (search_name, id)",
        };
        create_indexes(manager, &[names]).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop_tables(manager, &["files", "batches"]).await
    }
}
