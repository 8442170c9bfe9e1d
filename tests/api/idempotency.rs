//! `Idempotency-Key`.

use super::file;
use crate::support::{
    Installation, Process, TestApp,
    app::{Builder, SOON, json, problem},
    over_both_databases,
};
use landfall_core::idempotency::{self, Entry, LOCK};
use reqwest::{Response, multipart::Form};
use serde_json::json;

over_both_databases!(
    the_same_upload_again_gets_the_first_answer,
    a_refused_request_leaves_its_key_free,
    while_the_first_is_under_way_others_are_told,
    at_once_one_is_taken_in,
    other_posts_that_create_have_it_too,
);

async fn upload(app: &TestApp, key: &str, bytes: &'static [u8]) -> Response {
    let form = Form::new()
        .part("file", file("a", bytes))
        .text("metadata", "{}");
    let request = app
        .post("/v1/files")
        .multipart(form)
        .header("idempotency-key", key);
    request.send().await.expect("an answer")
}

async fn count(app: &TestApp) -> usize {
    let list = json(super::get(app, "/v1/files").await, 200).await;
    list["items"].as_array().map_or(0, Vec::len)
}

async fn the_same_upload_again_gets_the_first_answer(builder: Builder) {
    let app = builder.workers(&[]).start().await;
    let first = upload(&app, "k", b"hello").await;
    let location = first.headers()["location"].clone();
    let first = json(first, 202).await;
    // Another boundary, the same form.
    let again = upload(&app, "k", b"hello").await;
    assert_eq!(again.headers()["location"], location);
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert_eq!(json(again, 202).await, first);
    problem(
        upload(&app, "k", b"other").await,
        422,
        "idempotency_key_reused",
    )
    .await;
    assert_eq!(count(&app).await, 1);
    json(upload(&app, "another", b"hello").await, 202).await;
    assert_eq!(count(&app).await, 2);
}

async fn a_refused_request_leaves_its_key_free(builder: Builder) {
    let app = builder.workers(&[]).start().await;
    problem(upload(&app, "k", b"").await, 400, "empty_file").await;
    landfall_test_servers::wait_until(SOON, async || {
        (upload(&app, "k", b"hello").await.status() == 202).then_some(())
    })
    .await;
    assert_eq!(count(&app).await, 1);
}

async fn while_the_first_is_under_way_others_are_told(builder: Builder) {
    let app = builder.workers(&[]).start().await;
    let landfall = &app.parts.landfall;
    let first = idempotency::enter(&landfall.db, &landfall.clock, None, "k").await;
    let Entry::First(_) = first.expect("the database answers") else {
        panic!("nobody else has the key");
    };
    problem(upload(&app, "k", b"hello").await, 409, "in_flight").await;
    // A first that died is not waited for longer than its lock lives.
    landfall.clock.advance(LOCK);
    json(upload(&app, "k", b"hello").await, 202).await;
    assert_eq!(count(&app).await, 1);
}

async fn at_once_one_is_taken_in(builder: Builder) {
    let app = builder.workers(&[]).start().await;
    let all = (0..8).map(|_| upload(&app, "k", b"hello"));
    let answers = futures::future::join_all(all).await;
    for answer in &answers {
        assert!([202, 409].contains(&answer.status().as_u16()), "{answer:?}");
    }
    assert!(answers.iter().any(|answer| answer.status() == 202));
    assert_eq!(count(&app).await, 1);
}

async fn other_posts_that_create_have_it_too(builder: Builder) {
    let app = builder.workers(&[]).start().await;
    let create = async |url: &str| {
        let request = app.post("/v1/webhooks").header("idempotency-key", "k");
        request
            .json(&json!({ "url": url }))
            .send()
            .await
            .expect("an answer")
    };
    let first = json(create("https://example.com/a").await, 201).await;
    assert_eq!(
        json(create("https://example.com/a").await, 201).await,
        first
    );
    problem(
        create("https://example.com/b").await,
        422,
        "idempotency_key_reused",
    )
    .await;
    for wrong in ["k".repeat(256), "two words".to_owned(), String::new()] {
        let request = app.post("/v1/webhooks").header("idempotency-key", wrong);
        let refused = request
            .json(&json!({ "url": "https://example.com" }))
            .send()
            .await;
        problem(refused.expect("an answer"), 400, "malformed_request").await;
    }
}

#[tokio::test]
async fn an_api_killed_before_its_answer_gives_it_to_the_same_request_again() {
    let installation = Installation::new();
    let mut doomed_settings = installation.environment();
    doomed_settings.push(("LANDFALL_FAILPOINT".into(), "upload.committed=kill".into()));
    let client = reqwest::Client::new();
    let send = async |url: &str, bytes: &'static str| {
        let request = client.post(format!("{url}/v1/files?filename=a"));
        let request = request.header("idempotency-key", "k").body(bytes);
        request.send().await
    };
    let mut doomed = Process::listening(&["up"], &doomed_settings).await;
    send(&doomed.url, "hello")
        .await
        .expect_err("it is killed before it answers");
    doomed.dies_within(SOON).await;
    let api = Process::listening(&["serve"], &installation.environment()).await;
    let again = send(&api.url, "hello").await.expect("an answer");
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    let first = json(again, 202).await;
    let other = send(&api.url, "other").await.expect("an answer");
    problem(other, 422, "idempotency_key_reused").await;
    let list = client.get(format!("{}/v1/files", api.url)).send().await;
    let list = json(list.expect("an answer"), 200).await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(list["items"][0]["id"], first["id"]);
}
