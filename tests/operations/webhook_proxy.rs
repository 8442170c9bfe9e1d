//! `webhooks.proxy`: deliveries go through an HTTP proxy, to vetted addresses only.

use crate::support::{
    TestApp,
    app::{SOON, json},
};
use landfall_core::config::{Config, ConfigSources};
use landfall_test_servers::{ConnectProxy, wait_until};
use serde_json::{Value, json as object};

/// `user:pass word`, in base64.
const CREDENTIALS: &str = "Basic dXNlcjpwYXNzIHdvcmQ=";

async fn with_proxy(proxy: &ConnectProxy, user: &str) -> TestApp {
    TestApp::builder()
        .set(
            "webhooks.proxy",
            &format!("http://{user}{}", proxy.address()),
        )
        .start()
        .await
}

/// Waits until the only delivery has failed once, and returns its error.
async fn error(app: &TestApp, webhook: &Value) -> String {
    let path = format!(
        "/v1/webhooks/{}/deliveries",
        webhook["id"].as_str().expect("an id")
    );
    wait_until(SOON, async || {
        let deliveries = app.read(&path).await;
        let error = deliveries["items"][0]["last_error"].as_str();
        error.map(str::to_owned).ok_or(deliveries.to_string())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_go_through_the_proxy() {
    let proxy = ConnectProxy::start(Some(CREDENTIALS)).await;
    let app = with_proxy(&proxy, "user:pass%20word@").await;
    app.webhook("/hook", &[]).await;
    app.upload("through.txt", "through").await;
    let requests = app.receiver.wait_for_at("/hook", 1, SOON).await;
    assert!(requests[0].header("webhook-signature").starts_with("v1,"));
    assert!(!requests[0].headers.contains_key("proxy-authorization"));
    let asked = proxy.requests();
    assert_eq!(asked.len(), 1, "{asked:?}");
    let url: url::Url = app.receiver.url("/hook").parse().expect("a URL");
    let port = url.port().expect("a port");
    assert_eq!(asked[0].target, format!("127.0.0.1:{port}"));
    assert_eq!(asked[0].authorization.as_deref(), Some(CREDENTIALS));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_is_not_asked_for_forbidden_addresses() {
    let proxy = ConnectProxy::start(None).await;
    let app = TestApp::builder()
        .set("webhooks.proxy", &format!("http://{}", proxy.address()))
        .set("webhooks.allow_networks", "192.0.2.0/24")
        .start()
        .await;
    let hook = app.webhook("/hook", &[]).await;
    app.upload("kept.txt", "kept").await;
    let error = error(&app, &hook).await;
    assert!(
        error.contains("webhooks.allow_networks does not allow it"),
        "{error}"
    );
    assert!(proxy.requests().is_empty() && app.receiver.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_refuses_is_named_without_its_password() {
    let proxy = ConnectProxy::start(Some(CREDENTIALS)).await;
    let app = with_proxy(&proxy, "user:hunter2@").await;
    let hook = app.webhook("/hook", &[]).await;
    app.upload("refused.txt", "refused").await;
    let message = error(&app, &hook).await;
    assert!(
        message.contains("the proxy (webhooks.proxy) answered 407"),
        "{message}"
    );
    assert!(!message.contains("hunter2"), "{message}");
    assert!(!proxy.requests().is_empty() && app.receiver.requests().is_empty());
    let printed = format!("{:?}", app.parts.app.config);
    assert!(
        printed.contains("proxy") && !printed.contains("hunter2"),
        "{printed}"
    );

    let away = TestApp::builder()
        .set("webhooks.proxy", "http://user:hunter2@127.0.0.1:9")
        .start()
        .await;
    let hook = away.webhook("/hook", &[]).await;
    away.upload("away.txt", "away").await;
    let message = error(&away, &hook).await;
    assert!(
        message.contains("the proxy (webhooks.proxy) cannot be used"),
        "{message}"
    );
    assert!(
        message.contains("refused") && !message.contains("hunter2"),
        "{message}"
    );
}

#[test]
fn other_urls_are_not_accepted_and_not_printed() {
    for wrong in [
        "https://user:hunter2@proxy:3128",
        "socks5://user:hunter2@proxy:1080",
        "http://user:hunter2@proxy:3128/path",
        "user:hunter2@proxy:3128",
    ] {
        let faults = Config::load(ConfigSources {
            file: None,
            environment: vec![("LANDFALL__WEBHOOKS__PROXY".to_owned(), wrong.to_owned())],
        });
        let faults = faults.expect_err("it is refused").to_string();
        assert!(faults.contains("webhooks.proxy"), "{faults}");
        assert!(!faults.contains("hunter2"), "{faults}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_with_headers_work_through_the_proxy() {
    let proxy = ConnectProxy::start(None).await;
    let app = with_proxy(&proxy, "").await;
    let new = object!({ "url": app.receiver.url("/hook"), "headers": { "X-Key": "value" } });
    let created = app.post("/v1/webhooks").json(&new).send().await;
    json(created.expect("a response"), 201).await;
    app.upload("both.txt", "both").await;
    let requests = app.receiver.wait_for_at("/hook", 1, SOON).await;
    assert_eq!(requests[0].header("x-key"), "value");
    assert_eq!(proxy.requests().len(), 1);
}
