//! Additional headers of webhook endpoints: sent with every request, encrypted in the database, never shown again.

use crate::support::{
    TestApp,
    app::{Builder, SOON, json, problem},
    over_both_databases,
};
use entity::webhook_endpoint;
use reqwest::{Method, Response};
use sea_orm::EntityTrait;
use serde_json::{Value, json as object};

const KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

over_both_databases!(
    headers_are_sent_and_never_shown,
    headers_are_replaced_removed_and_kept,
    headers_that_cannot_be_sent_are_refused,
);

async fn call(app: &TestApp, method: Method, path: &str, body: &Value) -> Response {
    let request = app.request(method, path).json(body);
    request.send().await.expect("a response")
}

async fn create(app: &TestApp, headers: Value) -> Value {
    let new = object!({ "url": app.receiver.url("/hook"), "headers": headers });
    json(call(app, Method::POST, "/v1/webhooks", &new).await, 201).await
}

/// The stored headers of the only endpoint.
async fn stored(app: &TestApp) -> Option<String> {
    let rows = webhook_endpoint::Entity::find().all(app.parts.app.db.read());
    let mut rows = rows.await.expect("rows");
    assert_eq!(rows.len(), 1);
    rows.remove(0).headers
}

async fn headers_are_sent_and_never_shown(builder: Builder) {
    let app = builder.set("webhooks.secret_key", KEY).start().await;
    let given = object!({ "Authorization": "Bearer hunter2", "X-Tenant": "a b" });
    let created = create(&app, given).await;
    assert_eq!(
        created["header_names"],
        object!(["authorization", "x-tenant"])
    );
    let path = format!("/v1/webhooks/{}", created["id"].as_str().expect("an id"));
    let test = app.post(&format!("{path}/test")).send().await;
    json(test.expect("a response"), 202).await;
    app.upload("sent.txt", "sent").await;
    for request in app.receiver.wait_for_at("/hook", 2, SOON).await {
        assert_eq!(request.header("authorization"), "Bearer hunter2");
        assert_eq!(request.header("x-tenant"), "a b");
        assert_eq!(request.header("content-type"), "application/json");
        assert!(request.header("webhook-signature").starts_with("v1,"));
    }
    let sealed = stored(&app).await.expect("headers");
    assert!(
        sealed.contains("sealed:v1:") && !sealed.contains("hunter2"),
        "{sealed}"
    );
    let id = created["id"].as_str().expect("an id");
    let mut shown = vec![created.to_string()];
    for path in [
        &path,
        "/v1/webhooks",
        &format!("{path}/deliveries"),
        &format!("/webhooks/{id}"),
    ] {
        shown.push(app.text(path).await);
    }
    for text in shown {
        assert!(!text.contains("hunter2"), "{text}");
    }
    let page = app.text(&format!("/webhooks/{id}")).await;
    assert!(page.contains("authorization, x-tenant"), "{page}");
    let deleted = app.delete(&path).send().await.expect("a response");
    assert_eq!(deleted.status(), 204);
    assert_eq!(stored(&app).await, None);
}

async fn headers_are_replaced_removed_and_kept(builder: Builder) {
    let app = builder.start().await;
    let created = create(&app, object!({ "X-First": "1", "User-Agent": "gateway" })).await;
    let path = format!("/v1/webhooks/{}", created["id"].as_str().expect("an id"));
    let mut sent = 0;
    let mut next = async |patch: Value, names: Value| {
        let changed = json(call(&app, Method::PATCH, &path, &patch).await, 200).await;
        assert_eq!(changed["header_names"], names, "{patch}");
        let test = app.post(&format!("{path}/test")).send().await;
        json(test.expect("a response"), 202).await;
        sent += 1;
        let mut requests = app.receiver.wait_for_at("/hook", sent, SOON).await;
        requests.remove(sent - 1)
    };
    let request = next(
        object!({ "description": "kept" }),
        object!(["user-agent", "x-first"]),
    )
    .await;
    assert_eq!(
        (request.header("x-first"), request.header("user-agent")),
        ("1", "gateway")
    );
    let request = next(
        object!({ "headers": { "X-Second": "2" } }),
        object!(["x-second"]),
    )
    .await;
    assert_eq!(request.header("x-second"), "2");
    assert!(!request.headers.contains_key("x-first"), "{request:?}");
    assert!(request.header("user-agent").starts_with("Landfall/"));
    let request = next(object!({ "headers": {} }), object!([])).await;
    assert!(!request.headers.contains_key("x-second"), "{request:?}");
    assert_eq!(stored(&app).await, None);
}

async fn headers_that_cannot_be_sent_are_refused(builder: Builder) {
    let app = builder.workers(&[]).start().await;
    let created = create(&app, object!({ "x-kept": "kept" })).await;
    let path = format!("/v1/webhooks/{}", created["id"].as_str().expect("an id"));
    let many: serde_json::Map<String, Value> =
        (0..21).map(|n| (format!("x-{n}"), "v".into())).collect();
    for headers in [
        object!({ "Webhook-Id": "hunter2" }),
        object!({ "webhook-timestamp": "hunter2" }),
        object!({ "WEBHOOK-SIGNATURE": "hunter2" }),
        object!({ "Host": "hunter2" }),
        object!({ "Content-Length": "1" }),
        object!({ "content-type": "hunter2" }),
        object!({ "Transfer-Encoding": "chunked" }),
        object!({ "Connection": "close" }),
        object!({ "x\r\ny": "hunter2" }),
        object!({ "x y": "hunter2" }),
        object!({ "": "hunter2" }),
        object!({ "x": "hunter2\r\nEvil: 1" }),
        object!({ "x": "hunter2\n" }),
        object!({ "x": "" }),
        object!({ "x": "hunter2\u{0}" }),
        object!({ "x": "ä" }),
        object!({ "x": "v".repeat(4097) }),
        object!({ "X-A": "1", "x-a": "2" }),
        Value::Object(many),
    ] {
        let new = object!({ "url": app.receiver.url("/hook"), "headers": headers });
        let change = object!({ "headers": headers });
        for (method, path, body) in [
            (Method::POST, "/v1/webhooks", &new),
            (Method::PATCH, path.as_str(), &change),
        ] {
            let response = call(&app, method, path, body).await;
            let refused = problem(response, 400, "malformed_request").await;
            assert_eq!(
                refused["errors"][0]["field"], "headers",
                "{headers}: {refused}"
            );
            assert!(!refused.to_string().contains("hunter2"), "{refused}");
        }
    }
    let kept = json(app.get(&path).send().await.expect("a response"), 200).await;
    assert_eq!(kept["header_names"], object!(["x-kept"]));
}
