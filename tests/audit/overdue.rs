//! I7: rows that are due and were passed over.

use super::{AuditTarget, LOOK, REPAIR, everywhere};
use entity::file::{Column, Entity, FileStatus};
use landfall_core::{
    audit::Invariant,
    finalize::{FinalizeOutcome, Finalizer},
};
use landfall_queue::Inspector;
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, sea_query::Expr};

/// Lets three sweep periods pass without a sweep.
fn wait(target: &AuditTarget) {
    let landfall = target.landfall();
    landfall.clock.advance(3 * landfall.config.sweep.interval);
}

async fn ready(target: &AuditTarget, queue: &str) -> u64 {
    let inspector = Inspector::new(target.app.parts.queues.redis.clone());
    inspector.stats(queue).await.unwrap().ready
}

async fn forget_jobs(target: &AuditTarget, queue: &str) {
    let inspector = Inspector::new(target.app.parts.queues.redis.clone());
    let state = landfall_queue::JobState::Ready;
    inspector.delete_all(queue, state, 1000).await.unwrap();
    assert_eq!(ready(target, queue).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn staged_file_without_a_job_is_pushed() {
    for target in everywhere().await {
        let id = target.stage("forgotten.txt", "forgotten").await;
        forget_jobs(&target, "finalize").await;
        target.is_clean().await;
        wait(&target);
        target.one(Invariant::I7, &id.to_string()).await;
        assert_eq!(ready(&target, "finalize").await, 0, "asked to look only");
        assert!(target.audit(REPAIR).await.is_clean());
        assert_eq!(ready(&target, "finalize").await, 1);
        let outcome = Finalizer::new(target.landfall(), "test")
            .finalize(id)
            .await
            .unwrap();
        assert_eq!(outcome, FinalizeOutcome::Stored);
        target.is_clean().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn expired_lease_is_reported() {
    for target in everywhere().await {
        let id = target.stage("crashed.txt", "crashed").await;
        let landfall = target.landfall();
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
        target.is_clean().await;
        wait(&target);
        let offender = target.one(Invariant::I7, &id.to_string()).await;
        assert!(offender.detail.contains("lease"), "{offender:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn delivery_and_purge_that_are_overdue_are_pushed() {
    for target in everywhere().await {
        target.app.webhook("/hook", &["file.stored"]).await;
        let id = target.store("announced.txt", "announced").await;
        let path = format!("/v1/files/{id}");
        let deleted = target.app.delete(&path).send().await.unwrap();
        assert_eq!(deleted.status(), 204);
        for queue in ["deliver", "maintenance"] {
            forget_jobs(&target, queue).await;
        }
        wait(&target);
        let report = target.audit(LOOK).await;
        let ids: Vec<&str> = report.offenders.iter().map(|one| one.id.as_str()).collect();
        assert_eq!(report.found[&Invariant::I7], 2, "{ids:?}");
        assert!(ids.contains(&id.to_string().as_str()));
        assert!(target.audit(REPAIR).await.is_clean());
        for queue in ["deliver", "maintenance"] {
            assert_eq!(ready(&target, queue).await, 1, "{queue}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn expired_file_and_upload_missed_by_the_sweep_are_closed() {
    for target in everywhere().await {
        let request = target.app.post("/v1/files?filename=brief.txt");
        let body = "brief";
        let response = request.body(body).send().await.unwrap();
        let file: serde_json::Value = response.json().await.unwrap();
        let id: entity::FileId = file["id"].as_str().unwrap().parse().unwrap();
        Finalizer::new(target.landfall(), "test")
            .finalize(id)
            .await
            .unwrap();
        let landfall = target.landfall();
        Entity::update_many()
            .col_expr(Column::ExpiresAt, Expr::value(landfall.clock.now()))
            .filter(Column::Id.eq(id))
            .exec(landfall.db.read())
            .await
            .unwrap();
        let body = serde_json::json!({"original_filename": "never.bin", "total_size_bytes": 10});
        let response = target.app.post("/v1/uploads").json(&body).send().await;
        assert_eq!(response.unwrap().status(), 201);
        landfall.clock.advance(landfall.config.uploads.session_ttl);
        wait(&target);
        let report = target.audit(LOOK).await;
        assert_eq!(report.found[&Invariant::I7], 2, "{:?}", report.offenders);
        assert!(target.audit(REPAIR).await.is_clean());
        let report = target.audit(LOOK).await;
        assert!(!report.found.contains_key(&Invariant::I7), "{report:?}");
        assert_eq!(target.row(id).await.status, FileStatus::Deleted);
    }
}
