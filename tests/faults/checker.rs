//! The checker of the invariants sees what it is there for: each of these puts one thing wrong by hand.

use crate::support::{
    TestApp,
    app::{SOON, json as accepted},
    installation::BUCKET,
};
use entity::file;
use futures::FutureExt;
use landfall_core::digest::Sha256Digest;
use landfall_test_servers::{Behaviour, S3Server};
use reqwest::Method;
use sea_orm::{ConnectionTrait, EntityTrait};
use serde_json::json;
use std::time::Duration;

/// How long the checker waits for something that never happens.
const MOMENTS: Duration = Duration::from_secs(5);

/// Three files, stored and announced.
async fn at_rest() -> TestApp {
    let builder = TestApp::builder().set("sweep.interval", "1s");
    stored(builder.start().await).await
}

async fn stored(app: TestApp) -> TestApp {
    app.webhook("/hook", &[]).await;
    for number in 0..3 {
        let file = app.upload("a.txt", format!("content {number}")).await;
        app.settled(&file["id"]).await;
    }
    app.receiver.wait_for(3, SOON).await;
    app
}

async fn any_file(app: &TestApp) -> file::Model {
    let file = file::Entity::find().one(app.parts.app.db.read()).await;
    file.expect("files can be read").expect("there is a file")
}

const FAIL_DELIVERIES: &str = "UPDATE deliveries SET status = 'failed', last_error = 'by hand'";

/// Runs SQL that no code of the server runs.
async fn execute(app: &TestApp, sql: &'static str) {
    let db = &app.parts.app.db;
    let done = db.write(move |transaction| {
        async move { transaction.execute_unprepared(sql).await.map(drop) }.boxed()
    });
    done.await.expect("the statement runs");
}

#[tokio::test(flavor = "multi_thread")]
async fn healthy_installation_passes() {
    at_rest().await.invariants().hold().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_files_and_their_objects_are_gone() {
    let app = at_rest().await;
    let id = any_file(&app).await.id.to_string();
    let deleted = app.delete(&format!("/v1/files/{id}")).send().await;
    assert_eq!(deleted.expect("a response").status(), 204);
    app.log.deleted(&id);
    app.invariants().hold().await;
}

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "I1")]
async fn object_with_other_bytes_is_found_although_its_row_agrees() {
    let app = at_rest().await;
    let file = any_file(&app).await;
    let key = file.storage_key.as_deref().expect("a key");
    let object = app.parts.app.config.storage.path.join(key);
    std::fs::write(object, "").expect("the object is overwritten");
    let of_nothing = "UPDATE files SET size_bytes = 0, \
        sha256 = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'";
    execute(&app, of_nothing).await;
    app.invariants().hold().await;
}

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "I1")]
async fn acknowledged_upload_without_a_row_is_found() {
    let app = at_rest().await;
    app.log
        .acknowledged("0192f0c1-0000-7000-8000-000000000000", b"lost");
    app.invariants().hold().await;
}

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "I1")]
async fn undeclared_failed_file_is_found() {
    let app = refusing().await;
    app.invariants().hold().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_file_that_the_test_declares_passes() {
    let app = refusing().await;
    let id = app.log.files().remove(0).id;
    let invariants = app.invariants().fails(&id, "digest_mismatch");
    invariants.hold().await;
}

/// With one file that failed for what its bytes are: others than its client declared.
async fn refusing() -> TestApp {
    let builder = TestApp::builder().set("sweep.interval", "1s");
    let app = builder.start().await;
    let session = json!({
        "original_filename": "a.txt",
        "total_size_bytes": 5,
        "sha256": Sha256Digest::compute(b"other").to_string(),
    });
    let begun = app.post("/v1/uploads").json(&session).send().await;
    let begun = accepted(begun.expect("a response"), 201).await;
    let path = format!("/v1/uploads/{}", begun["id"].as_str().expect("an id"));
    let part = app.request(Method::PUT, &format!("{path}/parts/1"));
    let part = part.body("bytes").send().await;
    accepted(part.expect("a response"), 200).await;
    let complete = app.post(&format!("{path}/complete")).send().await;
    let file = accepted(complete.expect("a response"), 202).await;
    app.log
        .acknowledged(file["id"].as_str().expect("an id"), b"bytes");
    assert_eq!(app.settled(&file["id"]).await["status"], "failed");
    app
}

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "I2")]
async fn stored_file_without_an_event_is_found() {
    let app = at_rest().await;
    execute(&app, "DELETE FROM attempts").await;
    execute(&app, "DELETE FROM deliveries").await;
    execute(&app, "DELETE FROM outbox_events").await;
    app.invariants().hold().await;
}

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "I3")]
async fn missing_delivery_row_is_found() {
    let app = at_rest().await;
    execute(&app, "DELETE FROM attempts").await;
    execute(&app, "DELETE FROM deliveries").await;
    app.invariants().hold().await;
}

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "I3")]
async fn undeclared_failed_delivery_is_found() {
    let app = at_rest().await;
    execute(&app, FAIL_DELIVERIES).await;
    app.invariants().hold().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_deliveries_that_the_test_declares_pass() {
    let app = at_rest().await;
    execute(&app, FAIL_DELIVERIES).await;
    app.invariants().gives_up_on("/hook").hold().await;
}

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "I4")]
async fn delivery_marked_delivered_after_a_500_is_found() {
    let builder = TestApp::builder().set("webhooks.base_delay", "1h");
    let app = builder.set("sweep.interval", "1s").start().await;
    app.receiver.set("/hook", Behaviour::status(500));
    let app = stored(app).await;
    execute(&app, "UPDATE deliveries SET status = 'delivered'").await;
    app.invariants().hold().await;
}

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "I5")]
async fn object_without_a_row_is_found_anywhere() {
    let app = at_rest().await;
    let strange = app.parts.app.config.storage.path.join("elsewhere");
    std::fs::write(strange, "x").expect("an object");
    app.invariants().within(MOMENTS).hold().await;
}

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "I5")]
async fn staging_that_no_row_lists_is_found_while_uploads_are_open() {
    let app = at_rest().await;
    let open = serde_json::json!({ "original_filename": "a", "total_size_bytes": 5 });
    let open = app.post("/v1/uploads").json(&open).send().await;
    assert_eq!(open.expect("a response").status(), 201);
    let strange = app.parts.app.config.staging.path.join("strange");
    std::fs::write(strange, "x").expect("bytes");
    app.invariants().within(MOMENTS).hold().await;
}

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "I5")]
async fn open_multipart_upload_is_found() {
    let s3 = S3Server::start().await;
    let builder = TestApp::builder().s3(&s3).set("sweep.interval", "1s");
    let app = stored(builder.start().await).await;
    // Below no prefix of the server's: no sweep aborts it.
    let _id = s3.leave_upload_open(BUCKET, "elsewhere");
    app.invariants().within(MOMENTS).hold().await;
}

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "I6")]
async fn more_doubled_deliveries_than_faults_are_found() {
    let app = at_rest().await;
    let first = app.receiver.requests().remove(0);
    let client = reqwest::Client::new();
    for _ in 0..2 {
        let again = client.post(app.receiver.url("/hook"));
        let again = again.header("webhook-id", first.header("webhook-id"));
        again.send().await.expect("a response");
    }
    app.invariants().hold().await;
}

#[tokio::test(flavor = "multi_thread")]
#[should_panic(expected = "I7")]
async fn due_row_missed_by_the_sweep_is_found() {
    let builder = TestApp::builder().set("sweep.interval", "1s");
    let app = builder.workers(&[]).start().await;
    app.upload("a.txt", "x").await;
    app.invariants().hold().await;
}
