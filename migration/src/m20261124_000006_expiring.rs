//! The index with which the sweep finds stored files whose expiry has not been announced yet.

use crate::create_indexes;
use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        create_indexes(
            manager,
            &[
                "CREATE INDEX files_expiring ON files (expires_at) WHERE status = 'stored' \
               AND expires_at IS NOT NULL AND expiring_announced_at IS NULL",
            ],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .drop_index(
                Index::drop()
                    .name("files_expiring")
                    .table("files")
                    .to_owned(),
            )
            .await
    }
}
