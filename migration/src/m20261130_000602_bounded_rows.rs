//! The owner of each idempotency key, so that their number per owner is bounded; and deletion of the secrets of deleted
//! endpoints.

use sea_orm_migration::{prelude::*, schema::*, sea_orm::ConnectionTrait};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

const WIPE: &str = "UPDATE webhook_endpoints SET secret = '', previous_secret = NULL \
    WHERE deleted_at IS NOT NULL";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .alter_table(
                Table::alter()
                    .table("idempotency_keys")
                    .add_column(text_null("owner"))
                    .to_owned(),
            )
            .await?;
        let wiped = manager.get_connection().execute_unprepared(WIPE).await;
        wiped.map(drop)
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager
            .alter_table(
                Table::alter()
                    .table("idempotency_keys")
                    .drop_column("owner")
                    .to_owned(),
            )
            .await
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}
