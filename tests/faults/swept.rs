//! Sweeps during the completion of uploads: rows that move between tables while they are read are in use.

use crate::support::TestApp;
use futures::{StreamExt, stream};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};

const UPLOADS: usize = 300;

/// Uploads with two tus PATCHes, and returns the file's id.
async fn upload(app: &TestApp, number: usize) -> serde_json::Value {
    let begun = app
        .post("/v1/tus")
        .header("Tus-Resumable", "1.0.0")
        .header("Upload-Length", "10");
    let begun = begun.send().await.expect("a response");
    assert_eq!(begun.status(), 201, "{number}");
    let path = begun.headers()["location"].to_str().expect("a path");
    let path = path.strip_prefix(&app.url).unwrap_or(path).to_owned();
    for (offset, bytes) in [("0", "hello"), ("5", "world")] {
        let patch = app
            .request(reqwest::Method::PATCH, &path)
            .header("Tus-Resumable", "1.0.0")
            .header("Upload-Offset", offset)
            .header("Content-Type", "application/offset+octet-stream")
            .body(bytes);
        let response = patch.send().await.expect("a response");
        assert_eq!(response.status(), 204, "{number} at {offset}");
    }
    json!(path.rsplit('/').next())
}

async fn uploads_that_complete_beside_sweeps_are_all_stored(app: TestApp) {
    let done = AtomicBool::new(false);
    let sweeping = async {
        let mut sweeps = 0;
        while !done.load(Ordering::SeqCst) {
            let report = app.sweep().await;
            assert!(report.faults.is_empty(), "{:?}", report.faults);
            sweeps += 1;
        }
        sweeps
    };
    let uploading = async {
        let uploads = stream::iter(0..UPLOADS).map(|number| upload(&app, number));
        let ids: Vec<_> = uploads.buffer_unordered(8).collect().await;
        done.store(true, Ordering::SeqCst);
        ids
    };
    let (sweeps, ids) = tokio::join!(sweeping, uploading);
    assert!(sweeps >= 10, "{sweeps} sweeps are no loop");
    for id in &ids {
        let file = app.settled(id).await;
        assert_eq!(file["status"], "stored", "{file}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_completed_during_sweeps_are_stored_on_sqlite() {
    uploads_that_complete_beside_sweeps_are_all_stored(TestApp::start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn uploads_completed_during_sweeps_are_stored_on_postgres() {
    let app = TestApp::builder().postgres().start().await;
    uploads_that_complete_beside_sweeps_are_all_stored(app).await;
}
