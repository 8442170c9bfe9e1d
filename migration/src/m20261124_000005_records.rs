//! `periodic_runs`, `minute_counts`, `audit_entries`.

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
                    .table("periodic_runs")
                    .col(text("name").primary_key())
                    .col(timestamp_with_time_zone("started_at"))
                    .col(timestamp_with_time_zone_null("finished_at"))
                    .col(json_binary_null("report"))
                    .to_owned(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("minute_counts")
                    .col(big_integer("minute"))
                    .col(text("name"))
                    .col(big_integer("count"))
                    .primary_key(Index::create().col("minute").col("name"))
                    .to_owned(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("audit_entries")
                    .col(uuid("id").primary_key())
                    .col(timestamp_with_time_zone("at"))
                    .col(text("actor"))
                    .col(text("action"))
                    .col(text("subject"))
                    .col(json_binary("detail"))
                    .to_owned(),
            )
            .await?;
        create_indexes(
            manager,
            &["CREATE INDEX audit_entries_subject ON audit_entries (subject, id)"],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop_tables(
            manager,
            &["audit_entries", "minute_counts", "periodic_runs"],
        )
        .await
    }
}
