//! `uploads` and `parts`.

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
                    .table("uploads")
                    .col(uuid("id").primary_key())
                    .col(uuid("file_id"))
                    .col(text_null("owner"))
                    .col(string_len("kind", 16))
                    .col(string_len("status", 16))
                    .col(big_integer_null("chunk_size_bytes"))
                    .col(big_integer_null("total_size_bytes"))
                    .col(integer_null("total_parts"))
                    .col(integer("completed_parts"))
                    .col(big_integer("bytes_received"))
                    .col(text_null("tus_metadata"))
                    .col(text_null("tus_concat"))
                    .col(json_binary_null("staging_state"))
                    .col(binary_null("hash_state"))
                    .col(big_integer("fence"))
                    .col(text_null("lease_owner"))
                    .col(timestamp_with_time_zone_null("lease_expires_at"))
                    .col(timestamp_with_time_zone("created_at"))
                    .col(timestamp_with_time_zone("updated_at"))
                    .col(timestamp_with_time_zone("expires_at"))
                    .to_owned(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("parts")
                    .col(uuid("upload_id"))
                    .col(integer("part_number"))
                    .col(big_integer("size_bytes"))
                    .col(string_len_null("sha256", 64))
                    .col(json_binary_null("staging_state"))
                    .col(text_null("lease_owner"))
                    .col(timestamp_with_time_zone_null("lease_expires_at"))
                    .col(timestamp_with_time_zone("created_at"))
                    .primary_key(Index::create().col("upload_id").col("part_number"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("parts", "upload_id")
                            .to("uploads", "id")
                            .on_delete(ForeignKeyAction::Cascade),
                    )
                    .to_owned(),
            )
            .await?;
        create_indexes(
            manager,
            &[
                "CREATE INDEX uploads_file ON uploads (file_id)",
                "CREATE INDEX uploads_open ON uploads (expires_at) WHERE status IN ('init', 'in_progress')",
                "CREATE INDEX uploads_waiting ON uploads (expires_at) WHERE kind = 'partial' AND status = 'complete'",
                "CREATE INDEX uploads_closed ON uploads (expires_at) WHERE status NOT IN ('init', 'in_progress')",
                "CREATE INDEX uploads_owner ON uploads (owner, id) WHERE owner IS NOT NULL",
            ],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop_tables(manager, &["parts", "uploads"]).await
    }
}
