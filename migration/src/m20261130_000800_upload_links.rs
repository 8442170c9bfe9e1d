//! `upload_links` and `upload_link_files`.

use crate::{create_indexes, drop_tables};
use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const INDEXES: &[&str] = &[
    "CREATE INDEX upload_links_owner ON upload_links (owner, id)",
    "CREATE INDEX upload_links_expires ON upload_links (expires_at)",
    "CREATE INDEX upload_link_files_link ON upload_link_files (link_id, file_id)",
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("upload_links")
                    .col(uuid("id").primary_key())
                    .col(text_null("owner"))
                    .col(string_len("secret_sha256", 64).unique_key())
                    .col(integer("max_files"))
                    .col(integer("used_files"))
                    .col(integer("partial_uploads"))
                    .col(big_integer_null("max_size_bytes"))
                    .col(json_binary("allowed_types"))
                    .col(uuid_null("batch_id"))
                    .col(json_binary("metadata"))
                    .col(json_binary("cors_origins"))
                    .col(timestamp_with_time_zone("created_at"))
                    .col(timestamp_with_time_zone("expires_at"))
                    .col(timestamp_with_time_zone_null("revoked_at"))
                    .to_owned(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("upload_link_files")
                    .col(uuid("file_id").primary_key())
                    .col(uuid("link_id"))
                    .col(boolean("is_partial"))
                    .to_owned(),
            )
            .await?;
        create_indexes(manager, INDEXES).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop_tables(manager, &["upload_link_files", "upload_links"]).await
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}
