//! Redis, PostgreSQL, storage and receivers that go away and come back.

use super::cluster::Cluster;
use crate::support::{Installation, TestApp, app::SOON, invariants};
use landfall_core::sweep::sweep;
use landfall_test_servers::{
    Durability, PostgresServer, RedisServer, S3Operation, S3Server, wait_until,
};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn uploads_are_accepted_without_redis_and_stored_when_it_is_back() {
    let redis = RedisServer::start().await;
    // A sweep by the clock would come too late to be what stores them.
    let app = TestApp::builder()
        .set("redis.url", &redis.url())
        .set("sweep.interval", "1h")
        .start()
        .await;
    app.webhook("/hook", &[]).await;
    redis.stop().await;
    let asked = Instant::now();
    let mut acknowledged = Vec::new();
    for number in 0..20 {
        let file = app
            .upload(&format!("{number}.txt"), vec![b'x'; 1000 + number])
            .await;
        acknowledged.push(file["id"].as_str().unwrap().to_owned());
    }
    assert!(
        asked.elapsed() < SOON,
        "a missing Redis must not hold up answers"
    );
    redis.start_again().await;
    for id in &acknowledged {
        wait_until(SOON, async || {
            let status = app.file(id).await["status"].clone();
            if status == "stored" {
                Ok(())
            } else {
                Err(status.to_string())
            }
        })
        .await;
    }
    app.receiver.wait_for(20, SOON).await;
    invariants::hold(&app, &acknowledged, &app.receiver.requests()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flushall_with_a_thousand_files_in_flight_loses_nothing() {
    let redis = RedisServer::start().await;
    let mut installation = Installation::new();
    installation.set("redis.url", &redis.url());
    let cluster = Cluster::start(installation).await;
    cluster.webhook().await;
    let mut acknowledged = Vec::new();
    for number in 0..1000 {
        acknowledged.push(
            cluster
                .upload(&format!("{number}.txt"), vec![b'y'; 100 + number])
                .await,
        );
    }
    redis.flush_all().await;
    let _workers = [cluster.worker(None), cluster.worker(None)];
    wait_until(Duration::from_secs(120), async || {
        let seen = cluster.receiver.requests().len();
        redis_is_flushed_once_more(&redis, seen).await;
        if seen >= 1000 {
            Ok(())
        } else {
            Err(format!("{seen} announced"))
        }
    })
    .await;
    cluster.check(&acknowledged, 2).await;
}

/// In the middle of the work, too.
async fn redis_is_flushed_once_more(redis: &RedisServer, seen: usize) {
    static ONCE: std::sync::Once = std::sync::Once::new();
    if seen > 300 && !ONCE.is_completed() {
        ONCE.call_once(|| {});
        redis.flush_all().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_that_fails_and_hangs_is_tried_again() {
    let s3 = S3Server::start().await;
    let app = TestApp::builder().s3(&s3).start().await;
    s3.fail_next(S3Operation::PutObject, 8, 503);
    let file = app.upload("persistent.bin", vec![1; 50_000]).await;
    let settled = app.settled(&file["id"]).await;
    assert_eq!(settled["status"], "stored", "{settled}");
    let id = file["id"].as_str().unwrap().to_owned();
    invariants::hold(&app, &[id], &app.receiver.requests()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn object_stored_with_the_answer_lost_is_stored_once() {
    let s3 = S3Server::start().await;
    let app = TestApp::builder().s3(&s3).start().await;
    s3.answer_lost_next(S3Operation::PutObject, 2);
    let file = app.upload("lost.bin", vec![2; 60_000]).await;
    assert_eq!(app.settled(&file["id"]).await["status"], "stored");
    let id = file["id"].as_str().unwrap().to_owned();
    invariants::hold(&app, &[id], &app.receiver.requests()).await;
}

/// Uploads until ten are acknowledged; while the database is away none is.
async fn ten_more(app: &TestApp, acknowledged: &mut Vec<String>) {
    for number in 0..10 {
        let name = format!("{}.txt", acknowledged.len());
        let file = wait_until(SOON, async || {
            let request = app.post("/v1/files").query(&[("filename", &name)]);
            let answer = request.body(vec![b'z'; 1000 + number]).send().await;
            let answer = answer.map_err(|error| error.to_string())?;
            match answer.status().as_u16() {
                202 => Ok(answer.json::<serde_json::Value>().await.expect("a File")),
                503 => Err("503".to_owned()),
                _ => panic!("{answer:?}"),
            }
        })
        .await;
        acknowledged.push(file["id"].as_str().expect("an id").to_owned());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_that_drops_connections_restarts_and_crashes_loses_nothing() {
    let postgres = PostgresServer::start(Durability::On).await;
    let url = postgres.create_database().await;
    let builder = TestApp::builder().set("database.url", &url);
    let builder = builder.set("sweep.interval", "1s");
    let app = builder.set("workers.lease", "3s").start().await;
    app.webhook("/hook", &[]).await;
    let mut acknowledged = Vec::new();
    // Each while the files before are on their way.
    ten_more(&app, &mut acknowledged).await;
    assert!(postgres.kill_connections(&url).await > 0);
    ten_more(&app, &mut acknowledged).await;
    postgres.restart().await;
    ten_more(&app, &mut acknowledged).await;
    postgres.kill().await;
    postgres.start_again().await;
    ten_more(&app, &mut acknowledged).await;
    app.receiver.wait_for(acknowledged.len(), SOON * 3).await;
    let landfall = &app.parts.landfall;
    wait_until(SOON, async || sweep(landfall).await.map(drop)).await;
    invariants::come_to_rest(landfall).await;
    let received = app.receiver.requests();
    invariants::check(landfall, &acknowledged, &received).await;
    invariants::doubles_are_few(landfall, &received, 3).await;
}
