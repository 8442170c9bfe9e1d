//! Outages of Redis, PostgreSQL, storage and receivers.

use super::cluster::Cluster;
use crate::support::{Installation, TestApp, app::SOON};
use landfall_test_servers::{
    Durability, PostgresServer, RedisServer, S3Operation, S3Server, wait_until,
};
use std::time::{Duration, Instant};

/// How long a thousand files may take over two flushes.
const FLUSHED_WITHIN: Duration = Duration::from_secs(120);

/// Longer than any request to a store may take, retries included.
const HANG: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread")]
async fn uploads_are_accepted_without_redis_and_stored_when_it_is_back() {
    let redis = RedisServer::start().await;
    // The periodic sweep would be too late to be the reason.
    let app = TestApp::builder()
        .set("redis.url", &redis.url())
        .set("sweep.interval", "1h")
        .start()
        .await;
    app.webhook("/hook", &[]).await;
    redis.stop().await;
    let asked = Instant::now();
    for number in 0..20 {
        app.upload(&format!("{number}.txt"), vec![b'x'; 1000 + number])
            .await;
    }
    assert!(
        asked.elapsed() < SOON,
        "a missing Redis must not hold up answers"
    );
    redis.start_again().await;
    for file in app.log.files() {
        wait_until(SOON, async || {
            let status = app.file(&file.id).await["status"].clone();
            if status == "stored" {
                Ok(())
            } else {
                Err(status.to_string())
            }
        })
        .await;
    }
    app.receiver.wait_for(20, SOON).await;
    app.invariants().hold().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flushall_with_a_thousand_files_in_flight_loses_nothing() {
    let redis = RedisServer::start().await;
    let mut installation = Installation::new();
    installation.set("redis.url", &redis.url());
    let cluster = Cluster::start(installation).await;
    cluster.webhook().await;
    for number in 0..1000 {
        cluster
            .upload(&format!("{number}.txt"), vec![b'y'; 100 + number])
            .await;
    }
    redis.flush_all().await;
    let _workers = [cluster.worker(None), cluster.worker(None)];
    // And once more in the middle of the work.
    let announced = cluster.receiver.wait_for(300, FLUSHED_WITHIN).await.len();
    redis.flush_all().await;
    assert!(announced < 1000, "all was done before the second FLUSHALL");
    cluster.receiver.wait_for(1000, FLUSHED_WITHIN).await;
    cluster.check(2).await;
    assert_eq!(cluster.log.len(), 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_that_fails_and_hangs_is_retried() {
    let s3 = S3Server::start().await;
    let builder = TestApp::builder().s3(&s3);
    let app = builder.set("sweep.interval", "1s").start().await;
    s3.fail_next(S3Operation::PutObject, 8, 503);
    s3.hang_next(S3Operation::PutObject, 2, HANG);
    let file = app.upload("persistent.bin", vec![1; 50_000]).await;
    let id = file["id"].as_str().expect("an id");
    wait_until(HANG, async || {
        let status = app.file(id).await["status"].clone();
        match status == "stored" {
            true => Ok(()),
            false => Err(status.to_string()),
        }
    })
    .await;
    // Eight were rejected, two timed out, and one succeeded.
    assert!(s3.calls(S3Operation::PutObject) >= 11);
    app.invariants().hold().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn object_whose_response_was_lost_is_stored_once() {
    let s3 = S3Server::start().await;
    let builder = TestApp::builder().s3(&s3);
    let app = builder.set("sweep.interval", "1s").start().await;
    s3.answer_lost_next(S3Operation::PutObject, 2);
    let file = app.upload("lost.bin", vec![2; 60_000]).await;
    assert_eq!(app.settled(&file["id"]).await["status"], "stored");
    assert!(
        s3.calls(S3Operation::PutObject) >= 3,
        "two answers were lost"
    );
    app.invariants().hold().await;
}

/// Uploads until ten are acknowledged; none is while the database is down.
async fn ten_more(app: &TestApp) {
    for _ in 0..10 {
        let number = app.log.len();
        let (name, bytes) = (format!("{number}.txt"), vec![b'z'; 1000 + number]);
        let file = wait_until(SOON, async || {
            let request = app.post("/v1/files").query(&[("filename", &name)]);
            let response = request.body(bytes.clone()).send().await;
            let response = response.map_err(|error| error.to_string())?;
            match response.status().as_u16() {
                202 => Ok(response.json::<serde_json::Value>().await.expect("a File")),
                503 => Err("503".to_owned()),
                _ => panic!("{response:?}"),
            }
        })
        .await;
        app.log
            .acknowledged(file["id"].as_str().expect("an id"), &bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn postgres_that_drops_connections_restarts_and_crashes_loses_nothing() {
    let postgres = PostgresServer::start(Durability::On).await;
    let url = postgres.create_database().await;
    let builder = TestApp::builder().set("database.url", &url);
    let builder = builder.set("sweep.interval", "1s");
    let app = builder.set("workers.lease", "3s").start().await;
    app.webhook("/hook", &[]).await;
    // Each while the previous files are in progress.
    ten_more(&app).await;
    assert!(postgres.kill_connections(&url).await > 0);
    ten_more(&app).await;
    postgres.restart().await;
    ten_more(&app).await;
    postgres.kill().await;
    postgres.start_again().await;
    ten_more(&app).await;
    app.receiver.wait_for(app.log.len(), SOON * 3).await;
    app.invariants().after(3).hold().await;
}
