//! Webhook secrets at rest: encrypted, with a key that can be changed, and never in plain text.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use crate::support::{
    Installation, Process, TestApp,
    app::{Builder, SOON, json},
    over_both_databases,
    process::command,
};
use entity::{idempotency_key, webhook_endpoint};
use landfall_core::{db::Database, webhooks::signing::SigningSecret};
use landfall_test_servers::{Received, wait_until};
use sea_orm::EntityTrait;
use serde_json::Value;

const FIRST: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const SECOND: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

over_both_databases!(
    no_secret_is_in_plain_text_and_all_of_them_sign,
    keys_are_added_changed_and_removed,
    processes_with_only_the_old_key_keep_delivering,
);

/// The secrets in the database, and the stored responses that contain them.
async fn kept(db: &Database) -> (Vec<String>, Vec<String>) {
    let endpoints = webhook_endpoint::Entity::find().all(db.read()).await;
    let secrets = endpoints.unwrap().into_iter();
    let secrets = secrets.flat_map(|row| [Some(row.secret), row.previous_secret]);
    let answers = idempotency_key::Entity::find().all(db.read()).await;
    let answers = answers.unwrap().into_iter().filter_map(|row| row.body);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (secrets.flatten().collect(), answers.map(text).collect())
}

/// Whether one of the signatures of a request is by this secret.
fn is_signed_by(secret: &str, request: &Received) -> bool {
    let at: i64 = request.header("webhook-timestamp").parse().unwrap();
    let at = chrono::DateTime::from_timestamp(at, 0).unwrap();
    let secret = SigningSecret::parse(secret).unwrap();
    let signature = secret.sign(request.header("webhook-id"), at, &request.body);
    let mut signatures = request.header("webhook-signature").split(' ');
    signatures.any(|one| one == signature)
}

async fn post(app: &TestApp, path: &str, key: &str, status: u16) -> Value {
    let body = serde_json::json!({ "url": app.receiver.url("/hook") });
    let request = app.post(path).header("Idempotency-Key", key);
    let request = match path {
        "/v1/webhooks" => request.json(&body),
        _ => request,
    };
    json(request.send().await.unwrap(), status).await
}

async fn no_secret_is_in_plain_text_and_all_of_them_sign(builder: Builder) {
    let app = builder.set("webhooks.secret_key", FIRST).start().await;
    let made = post(&app, "/v1/webhooks", "made", 201).await;
    let rotate = format!(
        "/v1/webhooks/{}/rotate-secret",
        made["id"].as_str().unwrap()
    );
    let rotated = post(&app, &rotate, "rotated", 200).await;
    let (secrets, answers) = kept(&app.parts.app.db).await;
    assert_eq!((secrets.len(), answers.len()), (2, 2));
    for text in secrets.iter().chain(&answers) {
        assert!(text.starts_with("sealed:v1:"), "{text}");
    }
    // The same request again is shown the same secret.
    assert_eq!(post(&app, "/v1/webhooks", "made", 201).await, made);
    assert_eq!(post(&app, &rotate, "rotated", 200).await, rotated);
    app.upload("signed.txt", "hello").await;
    let sent = app.receiver.wait_for_at("/hook", 1, SOON).await.remove(0);
    for secret in [&made["secret"], &rotated["secret"]] {
        assert!(is_signed_by(secret.as_str().unwrap(), &sent), "{sent:?}");
    }
    // Other responses are stored unencrypted.
    let batch = app.post("/v1/batches").header("Idempotency-Key", "batch");
    json(
        batch.json(&serde_json::json!({})).send().await.unwrap(),
        201,
    )
    .await;
    let (_, answers) = kept(&app.parts.app.db).await;
    assert!(
        answers.iter().any(|text| text.starts_with('{')),
        "{answers:?}"
    );
}

type Environment = Vec<(String, String)>;

/// The settings of an app with these keys, the one before and the one now.
fn with_keys(app: &TestApp, previous: &str, key: &str) -> Environment {
    let mut environment = app.installation.environment();
    for (name, value) in [("PREVIOUS_SECRET_KEY", previous), ("SECRET_KEY", key)] {
        environment.push((format!("LANDFALL__WEBHOOKS__{name}"), value.to_owned()));
    }
    environment
}

/// Starts a server that fails to start, and returns the error.
async fn refusal(environment: &Environment) -> String {
    let output = command(&["serve"], environment).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

async fn keys_are_added_changed_and_removed(builder: Builder) {
    let app = builder.workers(&[]).start().await;
    let made = app.webhook("/hook", &[]).await;
    let secret = made["secret"].as_str().unwrap();
    let db = app.parts.app.db.clone();
    assert_eq!(kept(&db).await.0, [secret], "without a key it is itself");

    // Existing secrets are encrypted at the next start.
    let mut first = Process::listening(&["serve"], &with_keys(&app, "", FIRST)).await;
    let by_first = kept(&db).await.0;
    assert!(by_first[0].starts_with("sealed:v1:"), "{by_first:?}");
    assert!(first.terminate().await.success());

    let said = refusal(&with_keys(&app, "", "")).await;
    assert!(said.contains("webhooks.secret_key is not set"), "{said}");
    let said = refusal(&with_keys(&app, "", SECOND)).await;
    assert!(
        said.contains("webhooks.secret_key is not the key"),
        "{said}"
    );
    assert!(said.contains(made["id"].as_str().unwrap()), "{said}");
    assert!(!said.contains(SECOND) && !said.contains(secret), "{said}");
    assert_eq!(kept(&db).await.0, by_first, "nothing was changed by those");

    let changed = with_keys(&app, FIRST, SECOND);
    let serve = Process::listening(&["serve"], &changed).await;
    let by_second = kept(&db).await.0;
    assert!(by_second[0].starts_with("sealed:v1:") && by_second != by_first);
    let _worker = Process::spawn(&["worker"], &changed);
    let upload = app
        .client
        .post(format!("{}/v1/files?filename=a", serve.url));
    json(upload.body("hello").send().await.unwrap(), 202).await;
    let sent = app.receiver.wait_for_at("/hook", 1, SOON).await.remove(0);
    assert!(is_signed_by(secret, &sent), "{sent:?}");

    let _plain = Process::listening(&["serve"], &with_keys(&app, SECOND, "")).await;
    assert_eq!(kept(&db).await.0, [secret], "and is itself again");
}

async fn readiness(url: &str) -> Value {
    let response = reqwest::get(format!("{url}/readyz")).await.unwrap();
    json(response, 200).await
}

async fn create_at(app: &TestApp, url: &str, path: &str) -> Value {
    let body = serde_json::json!({ "url": app.receiver.url(path) });
    let response = app.client.post(format!("{url}/v1/webhooks")).json(&body);
    json(response.send().await.unwrap(), 201).await
}

async fn upload_at(app: &TestApp, url: &str) {
    let upload = app.client.post(format!("{url}/v1/files?filename=a"));
    json(upload.body("hello").send().await.unwrap(), 202).await;
}

/// A new key is used only once every process that runs knows it.
async fn processes_with_only_the_old_key_keep_delivering(builder: Builder) {
    let app = builder.workers(&[]).start().await;
    let secret = app.webhook("/hook", &["file.stored"]).await["secret"].clone();
    let db = app.parts.app.db.clone();
    let before = with_keys(&app, "", FIRST);
    let mut old = Process::listening(&["serve"], &before).await;
    let mut old_worker = Process::spawn(&["worker"], &before);
    upload_at(&app, &old.url).await;
    app.receiver.wait_for_at("/hook", 1, SOON).await;
    let by_first = kept(&db).await.0;
    assert!(by_first[0].starts_with("sealed:v1:"), "{by_first:?}");

    let changed = with_keys(&app, FIRST, SECOND);
    let new = Process::listening(&["serve"], &changed).await;
    assert_eq!(kept(&db).await.0, by_first, "sealed as before");
    let ready = readiness(&new.url).await;
    let detail = ready["checks"]["workers"]["detail"].as_str().unwrap();
    assert!(
        detail.contains("do not have the new webhooks.secret_key"),
        "{ready}"
    );
    assert_eq!(ready["status"], "degraded");
    // The old process can sign with secrets created by the new one.
    let other = create_at(&app, &new.url, "/other").await;
    upload_at(&app, &new.url).await;
    let sent = app.receiver.wait_for_at("/other", 1, SOON).await.remove(0);
    assert!(
        is_signed_by(other["secret"].as_str().unwrap(), &sent),
        "{sent:?}"
    );
    let sent = app.receiver.wait_for_at("/hook", 2, SOON).await.remove(1);
    assert!(is_signed_by(secret.as_str().unwrap(), &sent), "{sent:?}");

    assert!(old.terminate().await.success());
    assert!(old_worker.terminate().await.success());
    let _worker = Process::spawn(&["worker"], &changed);
    wait_until(SOON, async || {
        let kept = kept(&db).await.0;
        let all_new = kept
            .iter()
            .all(|sealed| sealed.starts_with("sealed:v1:") && !by_first.contains(sealed));
        let ready = readiness(&new.url).await;
        (all_new && ready["status"] == "ok")
            .then_some(())
            .ok_or(format!("{kept:?} {ready}"))
    })
    .await;
    // A process with only the new key can decrypt everything.
    let last = Process::listening(&["serve"], &with_keys(&app, "", SECOND)).await;
    let path = format!("{}/v1/webhooks/{}", last.url, other["id"].as_str().unwrap());
    let deleted = app.client.delete(path).send().await.unwrap();
    assert_eq!(deleted.status(), 204);
    assert_eq!(
        kept(&db)
            .await
            .0
            .iter()
            .filter(|secret| secret.is_empty())
            .count(),
        1
    );
}

#[tokio::test]
async fn an_invalid_key_is_named_and_not_shown() {
    let mut installation = Installation::new();
    installation.set("webhooks.secret_key", "hunter2");
    let said = refusal(&installation.environment()).await;
    assert!(said.contains("webhooks.secret_key"), "{said}");
    assert!(said.contains("openssl rand -base64 32"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}
