//! Untrusted text, such as names and responses, is escaped.

use super::dashboard_user::DashboardUser;
use crate::support::{TestApp, app::SOON};
use landfall_test_servers::{Behaviour, wait_until};
use serde_json::{Value, json};

const SCRIPT: &str = "<script>alert(1)</script>";
const ATTRIBUTE: &str = "\"><img src=x onerror=alert(1)>";

/// Our own markup never contains these, so a page that does shows untrusted markup.
fn assert_harmless(page: &str, what: &str) {
    for mark in ["<script>alert", "<img", "onerror=alert(1)>"] {
        assert!(!page.contains(mark), "{what} has {mark}: {page}");
    }
}

#[tokio::test]
async fn untrusted_names_types_metadata_and_responses_are_escaped() {
    let app = TestApp::builder()
        .set("webhooks.max_attempts", "1")
        .start()
        .await;
    let hostile = format!("{SCRIPT}{ATTRIBUTE}");
    app.receiver
        .set("/hook", Behaviour::status(500).body(hostile.clone()));
    let body = json!({ "url": app.receiver.url("/hook"), "description": hostile });
    let webhook: Value = app
        .post("/v1/webhooks")
        .json(&body)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let part = reqwest::multipart::Part::bytes(b"hello".to_vec())
        .file_name(format!("a{SCRIPT}'b.txt"))
        .mime_str("text/x-odd")
        .unwrap();
    let form = reqwest::multipart::Form::new()
        .text("metadata", json!({ SCRIPT: ATTRIBUTE }).to_string())
        .part("file", part);
    let file: Value = app
        .post("/v1/files")
        .multipart(form)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let id = file["id"].as_str().unwrap();
    app.settled(&file["id"]).await;
    let user = DashboardUser::local(&app).await;
    let path = format!("/files/{id}");
    let page = wait_until(SOON, async || {
        let page = user.page(&path).await;
        page.contains("Response").then_some(page)
    })
    .await;
    assert!(
        page.contains("&lt;script&gt;alert(1)"),
        "it is shown all the same"
    );
    let events: Value = app.read("/v1/events").await;
    let event = events["items"][0]["id"].as_str().unwrap();
    let webhook = webhook["id"].as_str().unwrap();
    for path in [
        path,
        "/files".to_owned(),
        format!(
            "/files?q={}",
            "%22%3E%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E"
        ),
        format!("/files?owner={}", "%3Cscript%3Ealert(1)%3C%2Fscript%3E"),
        "/events".to_owned(),
        format!(
            "/events?event_type={}",
            "%22%3E%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E"
        ),
        format!("/events/{event}"),
        "/webhooks".to_owned(),
        format!("/webhooks/{webhook}"),
        format!("/webhooks/{webhook}/replay"),
    ] {
        assert_harmless(&user.page(&path).await, &path);
        let policy = user.get(&path).send().await.unwrap();
        let policy = policy.headers()["content-security-policy"]
            .to_str()
            .unwrap()
            .to_owned();
        assert!(
            policy.contains("script-src 'self'") && !policy.contains("unsafe"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn an_error_page_escapes_what_was_sent() {
    let app = TestApp::builder().workers(&[]).start().await;
    for path in [
        "/files?status=%3Cimg%20src%3Dx%3E",
        "/files/%3Cimg%20src%3Dx%3E",
        "/webhooks/%3Cimg%3E/replay",
    ] {
        let response = app.get(path).send().await.unwrap();
        assert!(response.status().is_client_error(), "{path}");
        assert_harmless(&response.text().await.unwrap(), path);
    }
    let user = DashboardUser::local(&app).await;
    let response = user
        .press("/webhooks", &[("url", "<img src=x onerror=alert(1)>")])
        .await;
    assert_eq!(response.status(), 400);
    assert_harmless(
        &response.text().await.unwrap(),
        "an endpoint that is refused",
    );
}
