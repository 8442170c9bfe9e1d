//! The API over HTTP: what it accepts and rejects, and that nothing remains of rejected requests.

mod auth;
mod connections;
mod content;
mod definition;
mod idempotency;
mod judged;
mod lists;
mod tokens;
mod uploads;
mod waits;
mod webhooks;

use crate::support::{
    TestApp,
    app::{SOON, json},
};
use futures::TryStreamExt;
use landfall_test_servers::wait_until;
use reqwest::multipart::{Form, Part};
use serde_json::Value;

/// No workers run, so that only what the API left remains.
async fn without_workers() -> TestApp {
    TestApp::builder().workers(&[]).start().await
}

fn file(name: &str, bytes: impl Into<std::borrow::Cow<'static, [u8]>>) -> Part {
    Part::bytes(bytes).file_name(name.to_owned())
}

async fn send(app: &TestApp, form: Form) -> reqwest::Response {
    let sent = app.post("/v1/files").multipart(form).send().await;
    sent.expect("a response")
}

async fn get(app: &TestApp, path: &str) -> reqwest::Response {
    app.get(path).send().await.expect("a response")
}

/// No row, and no byte in staging; the bytes of a rejected request are deleted shortly after its response.
async fn nothing_is_left(app: &TestApp) {
    let list = json(get(app, "/v1/files").await, 200).await;
    assert_eq!(list["items"], Value::Array(Vec::new()));
    wait_until(SOON, async || {
        let pages: Vec<_> = app.parts.app.staging.list().try_collect().await.ok()?;
        pages.iter().all(Vec::is_empty).then_some(())
    })
    .await;
}
