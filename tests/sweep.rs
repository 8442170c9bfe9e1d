//! What the sweep removes, and what it must leave alone.

use crate::support::TestApp;
use landfall_core::staging::{Options, StagingKey};
use std::time::Duration;

/// Longer than `staging.grace`, shorter than `workers.retry_for`.
const A_DAY_AND_A_HALF: Duration = Duration::from_secs(36 * 3600);

#[tokio::test(flavor = "multi_thread")]
async fn staged_file_that_waits_longer_than_the_grace_period_keeps_its_bytes() {
    let app = TestApp::builder().workers(&[]).start().await;
    let landfall = &app.parts.landfall;
    let mut keys = Vec::new();
    for key in [None, Some("kept")] {
        let mut request = app.post("/v1/files").query(&[("filename", "waits.txt")]);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let answer = request.body("patience").send().await.unwrap();
        assert_eq!(answer.status(), 202);
        let file: serde_json::Value = answer.json().await.unwrap();
        keys.push(StagingKey(file["id"].as_str().unwrap().parse().unwrap()));
    }
    landfall.clock.advance(A_DAY_AND_A_HALF);
    assert_eq!(app.sweep().await.staging_removed, 0);
    for key in keys {
        assert_eq!(landfall.staging.len(key).await.unwrap(), Some(8));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn staging_that_no_row_knows_goes_after_the_grace_period_and_not_before() {
    let app = TestApp::builder().workers(&[]).start().await;
    let landfall = &app.parts.landfall;
    let key = StagingKey::generate();
    let body = futures::stream::iter([Ok::<_, std::io::Error>(bytes::Bytes::from_static(
        b"nobody's",
    ))]);
    landfall
        .staging
        .write(key, body, Options::default())
        .await
        .unwrap();
    assert_eq!(app.sweep().await.staging_removed, 0);
    landfall.clock.advance(A_DAY_AND_A_HALF);
    assert_eq!(app.sweep().await.staging_removed, 1);
    assert_eq!(landfall.staging.len(key).await.unwrap(), None);
}
