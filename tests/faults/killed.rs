//! SIGKILL between any two steps of finalize and deliver: another worker takes over, and nothing is lost or duplicated.

use super::cluster::{AFTER_A_KILL, Cluster};
use crate::support::Installation;
use sea_orm::EntityTrait;

const STEPS: [&str; 8] = [
    "finalize.received",
    "finalize.claimed",
    "finalize.transferred",
    "finalize.committed",
    "finalize.announced",
    "deliver.claimed",
    "deliver.sent",
    "deliver.recorded",
];

async fn killed_at_every_step(installation: Installation) {
    let cluster = Cluster::start(installation).await;
    cluster.webhook().await;
    for (number, step) in STEPS.into_iter().enumerate() {
        let mut doomed = cluster.worker(Some(&format!("{step}=kill")));
        let id = cluster
            .upload(&format!("{step}.bin"), step.as_bytes().repeat(1000))
            .await;
        doomed.dies_within(AFTER_A_KILL).await;
        let mut next = cluster.worker(None);
        cluster.wait_for(&id, "stored", AFTER_A_KILL).await;
        cluster.receiver.wait_for(number + 1, AFTER_A_KILL).await;
        cluster.check(number + 1).await;
        assert!(
            next.terminate().await.success(),
            "a worker ends well on SIGTERM"
        );
    }
    // One attempt was cut off after the receiver had it: at least once, and with the same id.
    let requests = cluster.receiver.requests();
    let mut ids: Vec<&str> = requests
        .iter()
        .map(|request| request.header("webhook-id"))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), STEPS.len(), "one event per file");
    assert!(
        requests.len() <= STEPS.len() + 2,
        "I6: {} requests for {} kills",
        requests.len(),
        STEPS.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_step_nothing_is_lost_on_sqlite() {
    killed_at_every_step(Installation::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn killed_at_every_step_nothing_is_lost_on_postgres_and_s3() {
    let s3 = landfall_test_servers::S3Server::start().await;
    let mut installation = Installation::new();
    installation.on_postgres().await;
    installation.store_in(&s3);
    killed_at_every_step(installation).await;
    assert!(s3.open_multipart_uploads().is_empty(), "I5");
}

#[tokio::test(flavor = "multi_thread")]
async fn file_with_lost_staging_fails_even_if_the_worker_is_killed() {
    let cluster = Cluster::start(Installation::new()).await;
    cluster.webhook().await;
    let id = cluster.upload("gone.bin", b"soon gone".to_vec()).await;
    let landfall = &cluster.parts.app;
    let file = entity::file::Entity::find_by_id(id.parse::<entity::FileId>().unwrap());
    let file = file.one(landfall.db.read()).await.unwrap().unwrap();
    let pieces = landfall_core::files::staged_pieces(landfall.db.read(), &file);
    for piece in pieces.await.unwrap() {
        landfall.staging.delete(&[piece.key]).await.unwrap();
    }
    let mut doomed = cluster.worker(Some("finalize.failed=kill"));
    doomed.dies_within(AFTER_A_KILL).await;
    let _next = cluster.worker(None);
    cluster.wait_for(&id, "failed", AFTER_A_KILL).await;
    let invariants = cluster.invariants().fails(&id, "staging_gone");
    invariants.after(1).hold().await;
    assert!(
        cluster.receiver.requests().is_empty(),
        "a failed upload announces nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn file_that_kills_two_workers_that_run_it_alone_is_quarantined_and_can_be_retried() {
    let cluster = Cluster::start(Installation::new()).await;
    let id = cluster.upload("poison.bin", b"deadly".to_vec()).await;
    // The first death makes it a suspect, the other two are proved to be its work.
    for _ in 0..3 {
        let mut doomed = cluster.worker(Some("finalize.transferred=kill"));
        doomed.dies_within(AFTER_A_KILL).await;
    }
    let mut next = cluster.worker(None);
    cluster.wait_for(&id, "failed", AFTER_A_KILL).await;
    let failed = cluster.file(&id).await;
    assert_eq!(failed["error"]["code"], "poison");
    assert!(failed["retryable_until"].is_string(), "{failed}");
    let retry = format!("{}/v1/files/{id}/retry", cluster.api.url);
    let retried = cluster.client.post(retry).send().await;
    assert_eq!(retried.expect("a response").status(), 202);
    cluster.wait_for(&id, "stored", AFTER_A_KILL).await;
    assert!(next.is_running());
    cluster.check(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn api_killed_after_the_response_loses_nothing() {
    let mut cluster = Cluster::start(Installation::new()).await;
    for number in 0..20 {
        cluster
            .upload(&format!("{number}.txt"), vec![b'x'; 4096 + number])
            .await;
    }
    cluster.api.kill().await;
    let _worker = cluster.worker(None);
    cluster.check(1).await;
}
