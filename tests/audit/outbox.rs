//! I2: a stored file without its event, an event without its file.

use super::{MarkedLocation, REPAIR, everywhere};
use entity::outbox_event::{Column, Entity, Model};
use landfall_core::audit::Invariant;
use landfall_test_servers::wait_until;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter};
use std::time::Duration;

async fn events(place: &MarkedLocation) -> Vec<Model> {
    let stored = Entity::find().filter(Column::EventType.eq("file.stored"));
    stored.all(place.landfall().db.read()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn missing_event_is_written_as_finalize_would_and_delivered() {
    for place in everywhere().await {
        place.app.webhook("/hook", &[]).await;
        let id = place.store("unannounced.txt", "unannounced").await;
        let before = events(&place).await;
        assert_eq!(before.len(), 1);
        let db = place.landfall().db.read();
        Entity::delete_many().exec(db).await.unwrap();
        place.one(Invariant::I2, &id.to_string()).await;
        place.repairs(1).await;
        let after = events(&place).await;
        assert_eq!(after.len(), 1);
        assert_eq!(after[0].idempotency_key, before[0].idempotency_key);
        assert_eq!(after[0].pending_deliveries, 1);
        let mut payload = after[0].payload.clone();
        // A signed URL is made afresh.
        payload["url"] = before[0].payload["url"].clone();
        assert_eq!(payload, before[0].payload);
        let deliverer = &place.app.parts.deliverer;
        let due = entity::delivery::Entity::find()
            .one(db)
            .await
            .unwrap()
            .unwrap();
        deliverer.deliver(due.id).await.unwrap();
        wait_until(Duration::from_secs(10), async || {
            (place.app.receiver.requests().len() == 1).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn event_of_a_file_stored_before_the_retention_is_not_missed() {
    for place in everywhere().await {
        place.store("old.txt", "old").await;
        let landfall = place.landfall();
        let retention = landfall.config.outbox.retention;
        landfall
            .clock
            .advance(retention + Duration::from_secs(3600));
        assert_eq!(place.app.sweep().await.events_deleted, 1);
        place.is_clean().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn row_that_was_deleted_leaves_an_object_and_an_event_which_go() {
    for place in everywhere().await {
        let id = place.store("rowless.txt", "rowless").await;
        place.store("kept.txt", "kept").await;
        let key = place.key(id).await;
        let event = events(&place).await.remove(0);
        assert_eq!(event.aggregate_id, id.0);
        let landfall = place.landfall();
        entity::file::Entity::delete_by_id(id)
            .exec(landfall.db.read())
            .await
            .unwrap();
        // A late request of a dead worker may still be carried out: too young an object stays.
        let early = place.audit(REPAIR).await;
        assert_eq!(early.found[&Invariant::I2], 1);
        assert_eq!(early.left.get(&Invariant::I2), None);
        assert_eq!(early.left[&Invariant::I5], 1);
        assert!(landfall.storage.head(&key).await.unwrap().is_some());
        landfall.clock.advance(3 * landfall.config.workers.lease);
        let offender = place.one(Invariant::I5, key.as_str()).await;
        assert_eq!(offender.detail, "no row names the object");
        place.repairs(1).await;
        // In a folder it is moved; in a bucket it stays until the sweep removes it.
        let left = landfall.storage.head(&key).await.unwrap();
        assert_eq!(left.is_some(), place.s3.is_some());
        assert_eq!(events(&place).await.len(), 1);
        // Nothing stays of the row that held the key meanwhile.
        let rows = entity::file::Entity::find()
            .all(landfall.db.read())
            .await
            .unwrap();
        assert_eq!(rows.len(), 1);
        let log = entity::audit_entry::Entity::find()
            .all(landfall.db.read())
            .await
            .unwrap();
        let subjects: Vec<&str> = log.iter().map(|entry| entry.subject.as_str()).collect();
        assert_eq!(subjects, [event.id.to_string().as_str(), key.as_str()]);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn event_of_a_file_that_is_not_stored_is_told_and_left() {
    for place in everywhere().await {
        let id = place.store("taken-back.txt", "taken back").await;
        let landfall = place.landfall();
        entity::file::Entity::update_many()
            .col_expr(
                entity::file::Column::Status,
                sea_orm::sea_query::Expr::value(entity::file::FileStatus::Failed),
            )
            .filter(entity::file::Column::Id.eq(id))
            .exec(landfall.db.read())
            .await
            .unwrap();
        let event = events(&place).await.remove(0);
        place.one(Invariant::I2, &event.id.to_string()).await;
        let report = place.audit(REPAIR).await;
        assert_eq!(report.left[&Invariant::I2], 1);
        assert_eq!(events(&place).await.len(), 1);
    }
}
