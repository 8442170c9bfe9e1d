//! I7: rows that are due and were passed over.

use super::{LOOK, MarkedLocation, REPAIR, everywhere};
use entity::file::{Column, Entity, FileStatus};
use landfall_core::{
    audit::Invariant,
    finalize::{FinalizeOutcome, Finalizer},
};
use landfall_queue::Inspector;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, sea_query::Expr};

/// Lets three sweep periods pass without a sweep.
fn wait(place: &MarkedLocation) {
    let landfall = place.landfall();
    landfall.clock.advance(3 * landfall.config.sweep.interval);
}

async fn ready(place: &MarkedLocation, queue: &str) -> u64 {
    let inspector = Inspector::new(place.app.parts.queues.redis.clone());
    inspector.stats(queue).await.unwrap().ready
}

async fn forget_jobs(place: &MarkedLocation, queue: &str) {
    let inspector = Inspector::new(place.app.parts.queues.redis.clone());
    let state = landfall_queue::JobState::Ready;
    inspector.delete_all(queue, state, 1000).await.unwrap();
    assert_eq!(ready(place, queue).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn staged_file_without_a_job_is_pushed() {
    for place in everywhere().await {
        let id = place.stage("forgotten.txt", "forgotten").await;
        forget_jobs(&place, "finalize").await;
        place.is_clean().await;
        wait(&place);
        place.one(Invariant::I7, &id.to_string()).await;
        assert_eq!(ready(&place, "finalize").await, 0, "asked to look only");
        assert!(place.audit(REPAIR).await.is_clean());
        assert_eq!(ready(&place, "finalize").await, 1);
        let outcome = Finalizer::new(place.landfall(), "test")
            .finalize(id)
            .await
            .unwrap();
        assert_eq!(outcome, FinalizeOutcome::Stored);
        place.is_clean().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn lease_nobody_took_over_is_told() {
    for place in everywhere().await {
        let id = place.stage("crashed.txt", "crashed").await;
        let landfall = place.landfall();
        Entity::update_many()
            .col_expr(Column::Status, Expr::value(FileStatus::Finalizing))
            .col_expr(Column::LeaseOwner, Expr::value("dead"))
            .col_expr(
                Column::LeaseExpiresAt,
                Expr::value(landfall.clock.after(landfall.config.workers.lease)),
            )
            .filter(Column::Id.eq(id))
            .exec(landfall.db.read())
            .await
            .unwrap();
        place.is_clean().await;
        wait(&place);
        let offender = place.one(Invariant::I7, &id.to_string()).await;
        assert!(offender.detail.contains("lease"), "{offender:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn delivery_and_purge_that_are_overdue_are_pushed() {
    for place in everywhere().await {
        place.app.webhook("/hook", &["file.stored"]).await;
        let id = place.store("announced.txt", "announced").await;
        let path = format!("/v1/files/{id}");
        let deleted = place.app.delete(&path).send().await.unwrap();
        assert_eq!(deleted.status(), 204);
        for queue in ["deliver", "maintenance"] {
            forget_jobs(&place, queue).await;
        }
        wait(&place);
        let report = place.audit(LOOK).await;
        let ids: Vec<&str> = report.offenders.iter().map(|one| one.id.as_str()).collect();
        assert_eq!(report.found[&Invariant::I7], 2, "{ids:?}");
        assert!(ids.contains(&id.to_string().as_str()));
        assert!(place.audit(REPAIR).await.is_clean());
        for queue in ["deliver", "maintenance"] {
            assert_eq!(ready(&place, queue).await, 1, "{queue}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn expired_file_and_upload_that_no_sweep_came_for_are_closed() {
    for place in everywhere().await {
        let request = place.app.post("/v1/files?filename=brief.txt");
        let body = "brief";
        let answer = request.body(body).send().await.unwrap();
        let file: serde_json::Value = answer.json().await.unwrap();
        let id: entity::FileId = file["id"].as_str().unwrap().parse().unwrap();
        Finalizer::new(place.landfall(), "test")
            .finalize(id)
            .await
            .unwrap();
        let landfall = place.landfall();
        Entity::update_many()
            .col_expr(Column::ExpiresAt, Expr::value(landfall.clock.now()))
            .filter(Column::Id.eq(id))
            .exec(landfall.db.read())
            .await
            .unwrap();
        let body = serde_json::json!({"original_filename": "never.bin", "total_size_bytes": 10});
        let answer = place.app.post("/v1/uploads").json(&body).send().await;
        assert_eq!(answer.unwrap().status(), 201);
        landfall.clock.advance(landfall.config.uploads.session_ttl);
        wait(&place);
        let report = place.audit(LOOK).await;
        assert_eq!(report.found[&Invariant::I7], 2, "{:?}", report.offenders);
        assert!(place.audit(REPAIR).await.is_clean());
        let report = place.audit(LOOK).await;
        assert!(!report.found.contains_key(&Invariant::I7), "{report:?}");
        assert_eq!(place.row(id).await.status, FileStatus::Deleted);
    }
}
