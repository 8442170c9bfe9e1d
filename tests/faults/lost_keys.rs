//! R12: Redis loses single keys, and what follows from the database is there again soon.

use crate::support::{TestApp, app::SOON};
use entity::webhook_endpoint;
use landfall_test_servers::{Behaviour, RedisServer, wait_until};
use landfall_workers::{QueueName, Workers};
use sea_orm::{EntityTrait, sea_query::Expr};
use std::{collections::BTreeMap, time::Duration};
use tokio_util::sync::CancellationToken;

const STALL: Duration = Duration::from_secs(30);

/// Workers of one process, until the token is cancelled.
fn start_workers(app: &TestApp, queues: &[QueueName]) -> CancellationToken {
    let parts = app.parts.clone();
    let workers = Workers {
        name: format!("{}-again", parts.worker),
        queues: queues.to_vec(),
        concurrency: None,
        meter: parts.meter,
        finish_within: Duration::from_secs(1),
    };
    let stop = CancellationToken::new();
    let run = landfall_workers::run(
        parts.app,
        parts.queues,
        parts.deliverer,
        workers,
        stop.clone(),
    );
    tokio::spawn(run);
    stop
}

/// No worker runs; three files are uploaded, and one key of their queue is lost. A worker that starts, and one sweep,
/// store all three.
async fn files_are_stored_without(ending: &str) {
    let server = RedisServer::start().await;
    let app = TestApp::builder()
        .set("redis.url", &server.url())
        .workers(&[])
        .start()
        .await;
    let mut files = Vec::new();
    for _ in 0..3 {
        files.push(app.upload("a.txt", "hello").await["id"].clone());
    }
    let prefix = app.parts.queues.redis.prefix();
    let lost = server
        .delete(&format!("{prefix}:{{finalize}}:{ending}"))
        .await;
    assert!(
        lost,
        "there is no {ending}: {:?}",
        server.keys(prefix).await
    );
    let _workers = start_workers(&app, &[QueueName::Finalize]);
    app.sweep().await;
    for file in &files {
        assert_eq!(
            app.settled(file).await["status"],
            "stored",
            "without {ending}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_stored_when_a_key_of_their_queue_is_lost() {
    for ending in ["lane:", "ring", "ids", "meta"] {
        files_are_stored_without(ending).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_begins_with_the_prefix() {
    let server = RedisServer::start().await;
    let app = TestApp::builder()
        .set("redis.url", &server.url())
        .set("redis.prefix", "intake")
        .set("limits.owner.requests_per_second", "1000")
        .start()
        .await;
    app.webhook("/hook", &[]).await;
    let file = app.upload("a.txt", "hello").await;
    app.settled(&file["id"]).await;
    app.receiver.wait_for_at("/hook", 1, SOON).await;
    let keys = server.keys("").await;
    assert!(keys.len() > 10, "{keys:?}");
    assert!(
        keys.iter().all(|key| key.starts_with("intake:{")),
        "{keys:?}"
    );
}

/// The files that are announced to the endpoint at once.
async fn upload(app: &TestApp, files: usize) {
    for _ in 0..files {
        let file = app.upload("a.txt", "hello").await;
        app.settled(&file["id"]).await;
    }
}

/// As after so many attempts that failed in a row, of every endpoint.
async fn set_failures(app: &TestApp, failures: i32) {
    let update = webhook_endpoint::Entity::update_many().col_expr(
        webhook_endpoint::Column::ConsecutiveFailures,
        Expr::val(failures),
    );
    let db = app.parts.app.db.clone();
    db.write(move |transaction| Box::pin(async move { update.exec(transaction).await }))
        .await
        .expect("the endpoint's row is written");
}

/// A worker that was restarted while the endpoint was limited knows nothing of that; the database knows that the
/// endpoint has recovered.
#[tokio::test(flavor = "multi_thread")]
async fn endpoint_that_recovered_has_all_its_slots_after_a_restart() {
    let app = TestApp::builder()
        .set("webhooks.endpoint_concurrency", "4")
        .workers(&[QueueName::Finalize])
        .start()
        .await;
    let webhook = app.webhook("/hook", &["file.stored"]).await;
    let deliver = &app.parts.queues.deliver;
    let id = webhook["id"].as_str().expect("an id");
    deliver
        .set_group_limit(id, Some(1))
        .await
        .expect("a limit of before");
    app.receiver.set("/hook", Behaviour::stall(STALL));
    upload(&app, 6).await;
    let _workers = start_workers(&app, &[QueueName::Deliver]);
    app.receiver.wait_for_at("/hook", 4, SOON).await;
    assert!(deliver.group_limits().await.expect("limits").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_endpoint_is_limited_again_after_flushall() {
    let server = RedisServer::start().await;
    let app = TestApp::builder()
        .set("redis.url", &server.url())
        .workers(&[QueueName::Finalize])
        .start()
        .await;
    let webhook = app.webhook("/dead", &["file.stored"]).await;
    set_failures(&app, 7).await;
    app.receiver.set("/dead", Behaviour::stall(STALL));
    let limited = BTreeMap::from([(webhook["id"].as_str().expect("an id").to_owned(), 1)]);
    let _workers = start_workers(&app, &[QueueName::Deliver]);
    let deliver = &app.parts.queues.deliver;
    let wait_for_limit = || {
        wait_until(SOON, async || {
            let limits = deliver
                .group_limits()
                .await
                .map_err(|error| error.to_string())?;
            (limits == limited)
                .then_some(())
                .ok_or(format!("{limits:?}"))
        })
    };
    wait_for_limit().await;
    server.flush_all().await;
    assert!(deliver.group_limits().await.expect("limits").is_empty());
    wait_for_limit().await;
    app.webhook("/healthy", &["file.stored"]).await;
    upload(&app, 6).await;
    app.receiver.wait_for_at("/healthy", 6, SOON).await;
    assert_eq!(
        app.receiver.requests_to("/dead").len(),
        1,
        "one request at a time"
    );
}
