//! `upload_segments`, and the segment that an upload or a part was last written to.

use crate::drop_tables;
use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .create_table(
                Table::create()
                    .table("upload_segments")
                    .col(uuid("upload_id"))
                    .col(big_integer("start_byte"))
                    .col(big_integer_null("fence"))
                    .col(big_integer("length_bytes"))
                    .primary_key(Index::create().col("upload_id").col("start_byte"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("upload_segments", "upload_id")
                            .to("uploads", "id")
                            .on_delete(ForeignKeyAction::Cascade),
                    )
                    .to_owned(),
            )
            .await?;
        for (table, column) in [
            ("uploads", big_integer_null("segment_start")),
            ("uploads", big_integer_null("segment_fence")),
            ("parts", uuid_null("attempt")),
        ] {
            manager
                .alter_table(Table::alter().table(table).add_column(column).to_owned())
                .await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (table, column) in [
            ("parts", "attempt"),
            ("uploads", "segment_fence"),
            ("uploads", "segment_start"),
        ] {
            manager
                .alter_table(Table::alter().table(table).drop_column(column).to_owned())
                .await?;
        }
        drop_tables(manager, &["upload_segments"]).await
    }
}
