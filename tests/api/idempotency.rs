//! `Idempotency-Key`.

use super::file;
use crate::support::{
    Installation, Process, TestApp,
    app::{Builder, SOON, json, problem},
    over_both_databases,
};
use landfall_core::idempotency::{self, IdempotencyEntry, LOCK_DURATION};
use reqwest::{Client, RequestBuilder, Response, multipart::Form};
use serde_json::{Value, json};

over_both_databases!(
    a_repeated_upload_gets_the_first_response,
    a_rejected_request_releases_its_key,
    while_the_first_request_is_in_progress_others_get_409,
    only_one_of_concurrent_requests_is_accepted,
    every_creating_post_supports_idempotency_keys,
);

async fn upload(app: &TestApp, key: &str, bytes: &'static [u8]) -> Response {
    let form = Form::new()
        .part("file", file("a", bytes))
        .text("metadata", "{}");
    let request = app
        .post("/v1/files")
        .multipart(form)
        .header("idempotency-key", key);
    request.send().await.expect("a response")
}

async fn count(app: &TestApp) -> usize {
    let list = json(super::get(app, "/v1/files").await, 200).await;
    list["items"].as_array().map_or(0, Vec::len)
}

async fn a_repeated_upload_gets_the_first_response(builder: Builder) {
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

async fn a_rejected_request_releases_its_key(builder: Builder) {
    let app = builder.workers(&[]).start().await;
    problem(upload(&app, "k", b"").await, 400, "empty_file").await;
    landfall_test_servers::wait_until(SOON, async || {
        (upload(&app, "k", b"hello").await.status() == 202).then_some(())
    })
    .await;
    assert_eq!(count(&app).await, 1);
}

async fn while_the_first_request_is_in_progress_others_get_409(builder: Builder) {
    let app = builder.workers(&[]).start().await;
    let landfall = &app.parts.app;
    let first = idempotency::acquire(&landfall.db, &landfall.clock, None, "k").await;
    let IdempotencyEntry::First(_) = first.expect("the database answers") else {
        panic!("nobody else has the key");
    };
    problem(upload(&app, "k", b"hello").await, 409, "in_flight").await;
    // A first that died is not waited for longer than its lock lives.
    landfall.clock.advance(LOCK_DURATION);
    json(upload(&app, "k", b"hello").await, 202).await;
    assert_eq!(count(&app).await, 1);
}

async fn only_one_of_concurrent_requests_is_accepted(builder: Builder) {
    let app = builder.workers(&[]).start().await;
    let all = (0..8).map(|_| upload(&app, "k", b"hello"));
    let answers = futures::future::join_all(all).await;
    for response in &answers {
        assert!(
            [202, 409].contains(&response.status().as_u16()),
            "{response:?}"
        );
    }
    assert!(answers.iter().any(|response| response.status() == 202));
    assert_eq!(count(&app).await, 1);
}

async fn every_creating_post_supports_idempotency_keys(builder: Builder) {
    let app = builder.workers(&[]).start().await;
    let create = async |url: &str| {
        let request = app.post("/v1/webhooks").header("idempotency-key", "k");
        request
            .json(&json!({ "url": url }))
            .send()
            .await
            .expect("a response")
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
        problem(refused.expect("a response"), 400, "malformed_request").await;
    }
}

/// Runs each of these over SQLite and over PostgreSQL, with processes to kill.
macro_rules! killed_over_both_databases {
    ($($name:ident),+ $(,)?) => {
        mod killed_on_sqlite {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Installation::new()).await;
            })+
        }
        mod killed_on_postgres {
            $(#[tokio::test]
            async fn $name() {
                let mut installation = super::Installation::new();
                installation.on_postgres().await;
                super::$name(installation).await;
            })+
        }
    };
}

killed_over_both_databases!(
    an_api_killed_before_the_response_sends_it_to_the_repeated_request,
    an_api_killed_before_the_response_leaves_one_session_and_one_batch,
    an_api_killed_before_the_response_shows_the_secret_to_the_repeated_request,
);

/// Sends a request to a process that is killed after the commit and before the response, then the same request to the
/// next process, which returns the stored response.
async fn killed_then_again(
    installation: &Installation,
    request: impl Fn(&str) -> RequestBuilder,
) -> (Process, Response) {
    let mut doomed_settings = installation.environment();
    doomed_settings.push(("LANDFALL_FAILPOINT".into(), "request.committed=kill".into()));
    let mut doomed = Process::listening(&["up"], &doomed_settings).await;
    request(&doomed.url)
        .send()
        .await
        .expect_err("it is killed before it answers");
    doomed.dies_within(SOON).await;
    let api = Process::listening(&["serve"], &installation.environment()).await;
    let again = request(&api.url).send().await.expect("a response");
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    (api, again)
}

fn client() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::new()
}

fn post(url: &str, path: &str) -> RequestBuilder {
    let request = client().post(format!("{url}{path}"));
    request.header("idempotency-key", path)
}

async fn listed(api: &Process, path: &str) -> Vec<Value> {
    let list = client().get(format!("{}{path}", api.url)).send().await;
    let list = json(list.expect("a response"), 200).await;
    list["items"].as_array().expect("a list").clone()
}

async fn an_api_killed_before_the_response_sends_it_to_the_repeated_request(
    installation: Installation,
) {
    let upload = |url: &str, bytes: &'static str| post(url, "/v1/files?filename=a").body(bytes);
    let (api, again) = killed_then_again(&installation, |url| upload(url, "hello")).await;
    let first = json(again, 202).await;
    let other = upload(&api.url, "other").send().await.expect("a response");
    problem(other, 422, "idempotency_key_reused").await;
    let files = listed(&api, "/v1/files").await;
    assert_eq!(files.len(), 1);
    assert_eq!(files[0]["id"], first["id"]);
}

async fn an_api_killed_before_the_response_leaves_one_session_and_one_batch(
    installation: Installation,
) {
    let asked = json!({ "original_filename": "a", "total_size_bytes": 5 });
    let (api, again) =
        killed_then_again(&installation, |url| post(url, "/v1/uploads").json(&asked)).await;
    let session = json(again, 201).await;
    let files = listed(&api, "/v1/files").await;
    assert_eq!(files.len(), 1);
    assert_eq!(files[0]["id"], session["id"]);
    drop(api);
    let asked = json!({ "metadata": { "shelf": 7 } });
    let (api, again) =
        killed_then_again(&installation, |url| post(url, "/v1/batches").json(&asked)).await;
    let location = again.headers()["location"].to_str().expect("ASCII");
    let found = client().get(format!("{}{location}", api.url)).send().await;
    let found = json(found.expect("a response"), 200).await;
    assert_eq!(found, json(again, 201).await);
}

async fn an_api_killed_before_the_response_shows_the_secret_to_the_repeated_request(
    installation: Installation,
) {
    let asked = json!({ "url": "https://example.com/hook" });
    let (api, again) =
        killed_then_again(&installation, |url| post(url, "/v1/webhooks").json(&asked)).await;
    let created = json(again, 201).await;
    let webhooks = listed(&api, "/v1/webhooks").await;
    assert_eq!(webhooks.len(), 1);
    assert_eq!(webhooks[0]["id"], created["id"]);
    drop(api);
    let path = format!(
        "/v1/webhooks/{}/rotate-secret",
        created["id"].as_str().expect("an id")
    );
    let (api, again) = killed_then_again(&installation, |url| post(url, &path)).await;
    let rotated = json(again, 200).await;
    let secret = |webhook: &Value| webhook["secret"].as_str().map(str::to_owned);
    assert!(secret(&rotated).is_some());
    assert_ne!(secret(&rotated), secret(&created));
    assert_eq!(
        listed(&api, "/v1/webhooks").await[0]["updated_at"],
        rotated["updated_at"]
    );
}
