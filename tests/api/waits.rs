//! `GET /v1/files/{id}`, and waiting there.

use super::{get, without_workers};
use crate::support::{
    TestApp,
    app::{SOON, json, problem},
};
use std::time::Instant;

#[tokio::test]
async fn waiting_ends_when_the_file_is_stored() {
    let app = TestApp::start().await;
    let taken = app.upload("a", "hello").await;
    let id = taken["id"].as_str().expect("an id");
    let began = Instant::now();
    let file = json(get(&app, &format!("/v1/files/{id}?wait=60")).await, 200).await;
    assert_eq!(file["status"], "stored", "{file}");
    assert!(began.elapsed() < SOON);
}

#[tokio::test]
async fn waiting_ends_after_its_timeout() {
    let app = without_workers().await;
    let taken = app.upload("a", "hello").await;
    let id = taken["id"].as_str().expect("an id");
    let response = get(&app, &format!("/v1/files/{id}?wait=1")).await;
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(json(response, 200).await["status"], "staged");
    for wait in ["61", "-1", "soon"] {
        let refused = get(&app, &format!("/v1/files/{id}?wait={wait}")).await;
        problem(refused, 400, "malformed_request").await;
    }
}

#[tokio::test]
async fn stopping_ends_the_wait() {
    let app = without_workers().await;
    let taken = app.upload("a", "hello").await;
    let id = taken["id"].as_str().expect("an id");
    let waiting = tokio::spawn(app.get(&format!("/v1/files/{id}?wait=60")).send());
    // Answered on another connection, so the waiting request has been accepted by then.
    json(get(&app, "/healthz").await, 200).await;
    let began = Instant::now();
    app.stop().await;
    assert!(began.elapsed() < SOON);
    // Rejected if it had not been read yet.
    if let Ok(response) = waiting.await.expect("no panic") {
        assert_eq!(response.status(), 200);
    }
}

#[tokio::test]
async fn a_file_that_has_not_changed_is_not_sent_again() {
    let app = TestApp::start().await;
    let taken = app.upload("a", "hello").await;
    app.settled(&taken["id"]).await;
    let path = format!("/v1/files/{}", taken["id"].as_str().expect("an id"));
    let first = get(&app, &path).await;
    assert!(!first.headers().contains_key("retry-after"));
    let etag = first.headers()["etag"].clone();
    let again = app
        .get(&path)
        .header("if-none-match", &etag)
        .send()
        .await
        .expect("a response");
    assert_eq!(again.status(), 304);
    assert_eq!(again.headers()["etag"], etag);
    app.delete(&path).send().await.expect("a response");
    let changed = app
        .get(&path)
        .header("if-none-match", &etag)
        .send()
        .await
        .expect("a response");
    assert_eq!(changed.status(), 200);
}
