//! Headers that are sent to a webhook endpoint with every request.

use sea_orm_migration::{prelude::*, schema::*};

#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let column = text_null("headers");
        let table = Table::alter()
            .table("webhook_endpoints")
            .add_column(column)
            .to_owned();
        manager.alter_table(table).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let table = Table::alter()
            .table("webhook_endpoints")
            .drop_column("headers")
            .to_owned();
        manager.alter_table(table).await
    }
}
