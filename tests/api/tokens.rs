//! `/v1/tokens`.

use crate::support::{
    TestApp,
    app::{json, problem},
};
use serde_json::{Value, json as object};

async fn create(app: &TestApp, body: &Value) -> Value {
    let response = app.post("/v1/tokens").json(body).send().await;
    json(response.expect("a response"), 201).await
}

#[tokio::test(flavor = "multi_thread")]
async fn created_token_authenticates_until_it_is_revoked() {
    let app = TestApp::builder().set("auth.mode", "tokens").start().await;
    let landfall = &app.parts.app;
    let admin = landfall_core::tokens::TokenScope::Admin;
    let made =
        landfall_core::tokens::create(&landfall.db, &landfall.clock, "root", &[admin], None).await;
    let (_, root) = made.expect("a token");
    let root = secrecy::ExposeSecret::expose_secret(&root).to_owned();

    let body = object!({"owner": "alice", "scopes": ["upload", "read"], "expires_in": 3600});
    let request = app.post("/v1/tokens").bearer_auth(&root).json(&body);
    let response = request.send().await.expect("a response");
    let location = response.headers()["location"]
        .to_str()
        .expect("text")
        .to_owned();
    let token = json(response, 201).await;
    assert_eq!(
        location,
        format!("/v1/tokens/{}", token["id"].as_str().expect("an id"))
    );
    assert_eq!(
        (&token["owner"], &token["scopes"]),
        (&body["owner"], &body["scopes"])
    );
    assert!(token["expires_at"].is_string(), "{token}");
    let secret = token["token"].as_str().expect("the token").to_owned();
    assert!(secret.starts_with("lf_"), "{token}");

    let files = || app.get("/v1/files").bearer_auth(&secret).send();
    json(files().await.expect("a response"), 200).await;
    let denied = app.get("/v1/tokens").bearer_auth(&secret).send().await;
    problem(denied.expect("a response"), 403, "forbidden").await;

    let list = app.get("/v1/tokens").bearer_auth(&root).send().await;
    let list = json(list.expect("a response"), 200).await;
    let listed = list["items"].as_array().expect("items");
    assert_eq!(listed.len(), 2, "{list}");
    assert_eq!(listed[0]["id"], token["id"]);
    assert!(
        listed.iter().all(|one| one.get("token").is_none()),
        "{list}"
    );

    let revoke = || app.delete(&location).bearer_auth(&root).send();
    assert_eq!(revoke().await.expect("a response").status(), 204);
    problem(files().await.expect("a response"), 401, "unauthorized").await;
    problem(revoke().await.expect("a response"), 404, "not_found").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_invalid_field_is_reported_at_once() {
    let app = TestApp::start().await;
    let body = object!({"owner": "a\u{7}", "scopes": ["write"], "expires_in": 0});
    let response = app.post("/v1/tokens").json(&body).send().await;
    let refused = problem(response.expect("a response"), 400, "malformed_request").await;
    let fields: Vec<&str> = refused["errors"]
        .as_array()
        .expect("errors")
        .iter()
        .filter_map(|error| error["field"].as_str())
        .collect();
    assert_eq!(fields, ["owner", "scopes", "expires_in"]);
    let none = object!({"owner": "alice", "scopes": []});
    let response = app.post("/v1/tokens").json(&none).send().await;
    problem(response.expect("a response"), 400, "malformed_request").await;
    let list = app.read("/v1/tokens").await;
    assert_eq!(list["items"], object!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_request_with_the_same_idempotency_key_returns_the_same_token() {
    let app = TestApp::start().await;
    let body = object!({"owner": "alice", "scopes": ["upload"]});
    let send = || {
        let request = app.post("/v1/tokens").header("Idempotency-Key", "one");
        request.json(&body).send()
    };
    let first = json(send().await.expect("a response"), 201).await;
    let second = json(send().await.expect("a response"), 201).await;
    assert_eq!(first, second);
    create(&app, &body).await;
    let list = app.read("/v1/tokens").await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(2), "{list}");
}
