//! Black-box tests of the shipped binary: built in release with default features if `LANDFALL_TEST_BINARY` names it, as
//! `scripts/test-release` does.

use crate::support::{Installation, Process, app::json, process::binary};
use landfall_core::digest::Sha256Digest;
use landfall_test_servers::Receiver;
use reqwest::Client;
use serde_json::Value;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn file_passes_from_the_request_to_the_webhook() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let installation = Installation::new();
    let receiver = Receiver::start().await;
    let mut up = Process::listening(&["up"], &installation.environment()).await;
    let client = Client::new();
    let webhook = serde_json::json!({ "url": receiver.url("/hook") });
    let made = client
        .post(format!("{}/v1/webhooks", up.url))
        .json(&webhook);
    let webhook = json(made.send().await.expect("a response"), 201).await;
    assert!(
        webhook["secret"]
            .as_str()
            .is_some_and(|one| one.starts_with("whsec_"))
    );

    let bytes = b"what ships".repeat(100_000);
    let sent = client.post(format!("{}/v1/files?filename=ships.bin", up.url));
    let sent = sent.body(bytes.clone()).send().await.expect("a response");
    let file = format!("{}/v1/files/{}", up.url, id(&json(sent, 202).await));
    let stored = client.get(format!("{file}?wait=60")).send().await;
    let stored = json(stored.expect("a response"), 200).await;
    assert_eq!(stored["status"], "stored", "{stored}");
    assert_eq!(stored["sha256"], Sha256Digest::compute(&bytes).to_string());
    let content = client.get(format!("{file}/content")).send().await;
    let content = content.expect("a response").bytes().await.expect("a body");
    assert!(content == bytes, "the bytes come back");

    let announced = receiver.wait_for(1, SOON).await.remove(0);
    let event: Value = serde_json::from_slice(&announced.body).expect("JSON");
    assert_eq!(event["type"], "file.stored");
    assert_eq!(event["data"]["file_id"], stored["id"]);
    assert!(announced.header("webhook-signature").starts_with("v1,"));
    assert!(up.terminate().await.success());
}

fn id(file: &Value) -> &str {
    file["id"].as_str().expect("an id")
}

/// Of the binary that `scripts/test-release` built, and of no other: that of the tests has failpoints.
#[tokio::test]
async fn released_binary_has_no_failpoints() {
    let has_failpoints = std::fs::read(binary())
        .expect("the binary can be read")
        .windows(b"LANDFALL_FAILPOINT".len())
        .any(|window| window == b"LANDFALL_FAILPOINT");
    let is_released = std::env::var_os("LANDFALL_TEST_BINARY").is_some();
    assert_eq!(has_failpoints, !is_released);
}
