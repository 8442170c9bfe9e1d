//! Which files may have killed their workers, which workers are alive, and who owns a storage key that files share.

use crate::{create_indexes, drop_tables};
use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // SQLite adds one column per statement.
        for column in [
            timestamp_with_time_zone_null("suspect_since"),
            integer("alone_deaths").default(0).to_owned(),
            timestamp_with_time_zone_null("owner_missed_at"),
            timestamp_with_time_zone_null("lease_lost_at"),
        ] {
            manager
                .alter_table(Table::alter().table("files").add_column(column).to_owned())
                .await?;
        }
        manager
            .create_table(
                Table::create()
                    .table("worker_processes")
                    .col(text("name").primary_key())
                    .col(timestamp_with_time_zone("started_at"))
                    .col(timestamp_with_time_zone("beat_at"))
                    .col(uuid_null("alone_file"))
                    .to_owned(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("storage_key_owners")
                    .col(text("key").primary_key())
                    .col(uuid("file_id"))
                    .col(string_len("state", 16))
                    .col(timestamp_with_time_zone_null("held_until"))
                    .col(timestamp_with_time_zone_null("uncertain_at"))
                    .col(timestamp_with_time_zone("updated_at"))
                    .to_owned(),
            )
            .await?;
        create_indexes(
            manager,
            &["CREATE INDEX worker_processes_beat ON worker_processes (beat_at)"],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop_tables(manager, &["storage_key_owners", "worker_processes"]).await?;
        for column in [
            "lease_lost_at",
            "owner_missed_at",
            "alone_deaths",
            "suspect_since",
        ] {
            manager
                .alter_table(Table::alter().table("files").drop_column(column).to_owned())
                .await?;
        }
        Ok(())
    }
}
