//! `webhook_endpoints`, `outbox_events`, `deliveries`, `attempts`.

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
                    .table("webhook_endpoints")
                    .col(uuid("id").primary_key())
                    .col(text("url"))
                    .col(json_binary("event_types"))
                    .col(text("description"))
                    .col(boolean("active"))
                    .col(text("secret"))
                    .col(text_null("previous_secret"))
                    .col(timestamp_with_time_zone_null("previous_secret_expires_at"))
                    .col(integer("consecutive_failures"))
                    .col(text_null("disabled_reason"))
                    .col(timestamp_with_time_zone("created_at"))
                    .col(timestamp_with_time_zone("updated_at"))
                    .col(timestamp_with_time_zone_null("deleted_at"))
                    .to_owned(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("outbox_events")
                    .col(uuid("id").primary_key())
                    .col(text("event_type"))
                    .col(text("aggregate_type"))
                    .col(uuid("aggregate_id"))
                    .col(text("idempotency_key"))
                    .col(json_binary("payload"))
                    .col(string_len("status", 16))
                    .col(integer("pending_deliveries"))
                    .col(integer("failed_deliveries"))
                    .col(text_null("traceparent"))
                    .col(timestamp_with_time_zone("created_at"))
                    .col(timestamp_with_time_zone_null("delivered_at"))
                    .to_owned(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("deliveries")
                    .col(uuid("id").primary_key())
                    .col(uuid("event_id"))
                    .col(uuid("webhook_id"))
                    .col(string_len("status", 16))
                    .col(integer("attempt_count"))
                    .col(integer("attempts_this_round"))
                    .col(timestamp_with_time_zone_null("next_attempt_at"))
                    .col(text_null("lease_owner"))
                    .col(timestamp_with_time_zone_null("lease_expires_at"))
                    .col(timestamp_with_time_zone_null("delivered_at"))
                    .col(text_null("last_error"))
                    .col(timestamp_with_time_zone("created_at"))
                    .col(timestamp_with_time_zone("updated_at"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("deliveries", "event_id")
                            .to("outbox_events", "id")
                            .on_delete(ForeignKeyAction::Cascade),
                    )
                    .to_owned(),
            )
            .await?;
        manager
            .create_table(
                Table::create()
                    .table("attempts")
                    .col(uuid("id").primary_key())
                    .col(uuid("delivery_id"))
                    .col(timestamp_with_time_zone("at"))
                    .col(integer_null("status_code"))
                    .col(big_integer("duration_ms"))
                    .col(text_null("error"))
                    .col(text_null("response_body"))
                    .foreign_key(
                        ForeignKey::create()
                            .from("attempts", "delivery_id")
                            .to("deliveries", "id")
                            .on_delete(ForeignKeyAction::Cascade),
                    )
                    .to_owned(),
            )
            .await?;
        create_indexes(
            manager,
            &[
                "CREATE UNIQUE INDEX outbox_events_key ON outbox_events (event_type, idempotency_key)",
                "CREATE INDEX outbox_events_status ON outbox_events (status, id)",
                "CREATE INDEX outbox_events_aggregate ON outbox_events (aggregate_id)",
                "CREATE UNIQUE INDEX deliveries_event ON deliveries (event_id, webhook_id)",
                "CREATE INDEX deliveries_webhook ON deliveries (webhook_id, status, id)",
                "CREATE INDEX deliveries_due ON deliveries (next_attempt_at) WHERE status = 'pending'",
                "CREATE INDEX attempts_delivery ON attempts (delivery_id, id)",
            ],
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        drop_tables(
            manager,
            &[
                "attempts",
                "deliveries",
                "outbox_events",
                "webhook_endpoints",
            ],
        )
        .await
    }
}
