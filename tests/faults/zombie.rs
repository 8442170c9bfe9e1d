//! A worker that freezes past its lease and thaws must not commit.

use super::cluster::{AFTER_A_KILL, Cluster, LEASE};
use crate::support::Installation;
use landfall_test_servers::wait_until;
use rustix::process::Signal;
use sea_orm::EntityTrait;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn worker_frozen_past_its_lease_cannot_commit() {
    let cluster = Cluster::start(Installation::new()).await;
    cluster.webhook().await;
    let mut zombie = cluster.worker(Some("finalize.transferred=stop"));
    let id = cluster.upload("slept.bin", vec![7; 100_000]).await;
    // It holds the claim, and does not move.
    cluster.wait_for(&id, "finalizing", AFTER_A_KILL).await;
    let mut awake = cluster.worker(None);
    cluster.wait_for(&id, "stored", LEASE + AFTER_A_KILL).await;
    let stored = cluster.file(&id).await;
    zombie.signal(Signal::CONT);
    // When the zombie works again, it is past the point where it froze.
    let other = cluster.upload("later.bin", vec![8; 1000]).await;
    assert!(awake.terminate().await.success());
    cluster.wait_for(&other, "stored", AFTER_A_KILL).await;
    assert!(zombie.is_running(), "a lost lease does not end a worker");
    assert_eq!(
        cluster.file(&id).await,
        stored,
        "the row is as the other worker committed it"
    );
    cluster.check(1).await;
    let events = entity::outbox_event::Entity::find()
        .all(cluster.parts.app.db.read())
        .await
        .unwrap();
    assert_eq!(events.len(), 2, "one event per file");
}

#[tokio::test(flavor = "multi_thread")]
async fn deliverer_frozen_past_its_lease_records_nothing() {
    let mut installation = Installation::new();
    // The delivery's lease is as long as a webhook may take, and a little more.
    installation.set("webhooks.timeout", "2s");
    let cluster = Cluster::start(installation).await;
    cluster.webhook().await;
    let mut zombie = cluster.worker(Some("deliver.sent=stop"));
    cluster.upload("told.bin", vec![7; 1000]).await;
    cluster.receiver.wait_for(1, AFTER_A_KILL).await;
    let mut awake = cluster.worker(None);
    let requests = cluster.receiver.wait_for(2, Duration::from_secs(180)).await;
    assert_eq!(
        requests[0].header("webhook-id"),
        requests[1].header("webhook-id")
    );
    // Recorded by the worker that is awake, before the zombie moves.
    let attempts = wait_until(AFTER_A_KILL, async || {
        let attempts = attempts(&cluster).await;
        (!attempts.is_empty()).then_some(attempts)
    })
    .await;
    zombie.signal(Signal::CONT);
    assert!(awake.terminate().await.success());
    // When the zombie works again it has continued, and when it exits cleanly its old attempt is over, too.
    cluster.upload("later.bin", vec![8; 1000]).await;
    cluster.receiver.wait_for(3, AFTER_A_KILL).await;
    assert!(zombie.terminate().await.success());
    let _last = cluster.worker(None);
    cluster.check(1).await;
    let first = attempts[0].delivery_id;
    let now: Vec<_> = self::attempts(&cluster).await;
    let now: Vec<_> = now.iter().filter(|one| one.delivery_id == first).collect();
    assert_eq!(now, [&attempts[0]], "the zombie's attempt is fenced off");
}

async fn attempts(cluster: &Cluster) -> Vec<entity::attempt::Model> {
    let attempts = entity::attempt::Entity::find().all(cluster.parts.app.db.read());
    attempts.await.expect("attempts can be read")
}
