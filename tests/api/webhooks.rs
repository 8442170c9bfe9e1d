//! `/v1/webhooks` and `/v1/events`.

use super::get;
use crate::support::{
    TestApp,
    app::{Builder, SOON, json, problem},
    over_both_databases,
};
use landfall_test_servers::wait_until;
use reqwest::{Method, Response};
use serde_json::{Value, json};

over_both_databases!(
    an_endpoint_is_created_updated_and_deleted,
    wrong_bodies_are_named_field_by_field,
    bodies_are_bounded_json,
    a_test_event_and_a_redelivery_reach_the_endpoint,
    a_replay_counts_the_deliveries_it_schedules,
);

async fn call(app: &TestApp, method: Method, path: &str, body: &Value) -> Response {
    let request = app.request(method, path).json(body);
    request.send().await.expect("a response")
}

async fn an_endpoint_is_created_updated_and_deleted(builder: Builder) {
    let app = builder.workers(&[]).start().await;
    let new = json!({ "url": "https://example.com/a", "event_types": ["file.stored"] });
    let created = json(call(&app, Method::POST, "/v1/webhooks", &new).await, 201).await;
    let secret = created["secret"].as_str().expect("a secret").to_owned();
    assert!(secret.starts_with("whsec_"));
    let path = format!("/v1/webhooks/{}", created["id"].as_str().expect("an id"));
    let seen = json(get(&app, &path).await, 200).await;
    assert!(seen.get("secret").is_none());
    assert_eq!(seen["event_types"], json!(["file.stored"]));
    let patch = json!({ "active": false, "description": "a test" });
    let changed = json(call(&app, Method::PATCH, &path, &patch).await, 200).await;
    assert_eq!(
        (&changed["active"], &changed["description"]),
        (&json!(false), &json!("a test"))
    );
    assert_eq!(changed["url"], "https://example.com/a");
    let rotated = app.post(&format!("{path}/rotate-secret")).send().await;
    let rotated = json(rotated.expect("a response"), 200).await;
    assert_ne!(rotated["secret"].as_str(), Some(secret.as_str()));
    let list = json(get(&app, "/v1/webhooks").await, 200).await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    let deleted = app.delete(&path).send().await.expect("a response");
    assert_eq!(deleted.status(), 204);
    problem(get(&app, &path).await, 404, "not_found").await;
}

async fn wrong_bodies_are_named_field_by_field(builder: Builder) {
    let app = builder.workers(&[]).start().await;
    let refused = async |body: Value, code: &str| {
        let response = call(&app, Method::POST, "/v1/webhooks", &body).await;
        let refused = problem(response, 400, code).await;
        let errors = refused["errors"].as_array().cloned().unwrap_or_default();
        let fields = errors
            .iter()
            .map(|error| error["field"].as_str().unwrap_or("").to_owned());
        fields.collect::<Vec<_>>()
    };
    let two = json!({ "url": "https://example.com", "secrt": "x", "typ": 1 });
    assert_eq!(refused(two, "unknown_field").await, ["secrt", "typ"]);
    assert_eq!(refused(json!({}), "malformed_request").await, ["url"]);
    assert_eq!(
        refused(json!({ "url": 7 }), "malformed_request").await,
        ["url"]
    );
    let nested = json!({ "url": "https://example.com", "event_types": [1] });
    assert_eq!(
        refused(nested, "malformed_request").await,
        ["event_types[0]"]
    );
    let several = json!({ "url": "ftp://x", "event_types": ["odd"] });
    assert_eq!(
        refused(several, "malformed_request").await,
        ["url", "event_types"]
    );
    assert!(refused(json!([]), "malformed_request").await.is_empty());
}

async fn bodies_are_bounded_json(builder: Builder) {
    let app = builder.workers(&[]).start().await;
    let raw = async |body: String, content_type: &str| {
        let request = app
            .post("/v1/webhooks")
            .header("content-type", content_type)
            .body(body);
        request.send().await.expect("a response")
    };
    problem(
        raw("{".to_owned(), "application/json").await,
        400,
        "malformed_request",
    )
    .await;
    problem(
        raw(String::new(), "application/json").await,
        400,
        "malformed_request",
    )
    .await;
    problem(
        raw("{}".to_owned(), "text/plain").await,
        415,
        "unsupported_media_type",
    )
    .await;
    let deep = format!("{{\"url\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    problem(
        raw(deep, "application/json").await,
        400,
        "malformed_request",
    )
    .await;
    let large = format!("{{\"url\":\"{}\"}}", "x".repeat(70_000));
    problem(raw(large, "application/json").await, 413, "too_large").await;
}

async fn a_test_event_and_a_redelivery_reach_the_endpoint(builder: Builder) {
    let app = builder.start().await;
    let webhook = app.webhook("/hook", &["batch.complete"]).await;
    let path = format!("/v1/webhooks/{}", webhook["id"].as_str().expect("an id"));
    let tested = app
        .post(&format!("{path}/test"))
        .send()
        .await
        .expect("a response");
    let event = json(tested, 202).await;
    assert_eq!(event["event_type"], "webhook.test");
    app.receiver.wait_for(1, SOON).await;
    let event_path = format!("/v1/events/{}", event["id"].as_str().expect("an id"));
    let delivered = wait_until(SOON, async || {
        let event = json(get(&app, &event_path).await, 200).await;
        (event["status"] == "delivered").then_some(event)
    })
    .await;
    let delivery = &delivered["deliveries"][0];
    assert_eq!(delivery["webhook_id"], webhook["id"]);
    assert_eq!(delivery["attempts"][0]["status_code"], 200, "{delivery}");
    let again = app.post(&format!("{event_path}/redeliver")).send().await;
    json(again.expect("a response"), 202).await;
    app.receiver.wait_for(2, SOON).await;
    let list = json(get(&app, &format!("{path}/deliveries")).await, 200).await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    let events = json(get(&app, "/v1/events?event_type=webhook.test").await, 200).await;
    assert_eq!(events["items"][0]["id"], event["id"]);
    assert_eq!(events["items"][0]["deliveries"][0]["attempts"], json!([]));
}

async fn a_replay_counts_the_deliveries_it_schedules(builder: Builder) {
    let app = builder.start().await;
    let taken = app.upload("a", "hello").await;
    app.settled(&taken["id"]).await;
    let webhook = app.webhook("/hook", &[]).await;
    let path = format!(
        "/v1/webhooks/{}/replay",
        webhook["id"].as_str().expect("an id")
    );
    let replayed = call(
        &app,
        Method::POST,
        &path,
        &json!({ "since": "2020-01-01T00:00:00Z" }),
    )
    .await;
    assert_eq!(json(replayed, 202).await, json!({ "count": 1 }));
    app.receiver.wait_for(1, SOON).await;
    let pending = json!({ "since": "2020-01-01T00:00:00Z", "status": "pending" });
    problem(
        call(&app, Method::POST, &path, &pending).await,
        400,
        "malformed_request",
    )
    .await;
    let since = json!({ "since": "yesterday" });
    problem(
        call(&app, Method::POST, &path, &since).await,
        400,
        "malformed_request",
    )
    .await;
}
