//! Outside judges: the clients that people use.

use super::{row, send, stored};
use crate::support::{TestApp, app::json};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;
use std::{path::Path, time::Duration};
use tokio::process::Command;

const WITHIN: Duration = Duration::from_secs(240);

/// What `scripts/test` installs.
fn modules() -> String {
    std::env::var("LANDFALL_TEST_NODE_MODULES").expect(
        "LANDFALL_TEST_NODE_MODULES names a folder with tus-js-client; scripts/test installs it",
    )
}

pub(crate) async fn node(script: &str, arguments: &[&str]) -> String {
    let mut command = Command::new("node");
    command.env("LANDFALL_TEST_NODE_MODULES", modules());
    run(command, script, arguments).await
}

async fn python(script: &str, arguments: &[&str]) -> String {
    let python = std::env::var("LANDFALL_TEST_PYTHON")
        .expect("LANDFALL_TEST_PYTHON names a Python with tuspy; scripts/test installs it");
    run(Command::new(python), script, arguments).await
}

/// What the script prints.
async fn run(mut command: Command, script: &str, arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(script);
    command.arg(script).args(arguments).kill_on_drop(true);
    let output = tokio::time::timeout(WITHIN, command.output()).await;
    let output = output
        .expect("the client ends in time")
        .expect("the client starts; scripts/test installs it");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout)
        .expect("text")
        .trim()
        .to_owned()
}

async fn every_way_is_stored(
    app: &TestApp,
    ways: &[&str],
    client: impl AsyncFn(&[&str]) -> String,
) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file.bin");
    let bytes = noise(2_000_003);
    std::fs::write(&file, &bytes).expect("a file");
    let endpoint = format!("{}/v1/tus", app.url);
    let file = file.display().to_string();
    for way in ways {
        let url = client(&[&endpoint, way, &file]).await;
        let path = url.strip_prefix(&app.url).expect("a URL of this server");
        assert!(stored(app, path).await == bytes, "{way}: other bytes");
        let name = row(app, path).await.original_filename;
        assert_eq!(name, "Straße 😀.bin", "{way}");
    }
}

#[tokio::test]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs Node.js: scripts/test runs it"
)]
async fn tus_js_client_uploads_in_every_mode() {
    let app = TestApp::start().await;
    let ways = [
        "whole",
        "chunks",
        "parallel",
        "creation",
        "deferred",
        "override",
        "resumed",
        "draft",
        "draft-chunks",
        "draft-resumed",
    ];
    let client = async |arguments: &[&str]| node("tus.mjs", arguments).await;
    every_way_is_stored(&app, &ways, client).await;
}

#[tokio::test]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs Python: scripts/test runs it"
)]
async fn tuspy_uploads_in_every_mode() {
    let app = TestApp::start().await;
    let ways = ["whole", "chunks", "checksums", "resumed", "remembered"];
    let client = async |arguments: &[&str]| python("tuspy_upload.py", arguments).await;
    every_way_is_stored(&app, &ways, client).await;
}

/// Irregular enough for swapped parts to be noticed.
fn noise(size: usize) -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(size as u64);
    let mut bytes = vec![0; size];
    random.fill(&mut bytes[..]);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs Node.js: scripts/test runs it"
)]
async fn uppy_resumes_a_paused_upload_after_a_reload() {
    const SIZE: usize = 200 * 1024 * 1024;
    let app = TestApp::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("Straße 😀.bin");
    let bytes = noise(SIZE);
    std::fs::write(&file, &bytes).unwrap();
    let seen = node("uppy.mjs", &[&app.url, &file.display().to_string()]).await;
    let seen: Value = serde_json::from_str(&seen).expect("JSON");
    let (paused, resumed) = (seen["pausedAt"].as_u64(), seen["resumedAt"].as_u64());
    assert!(paused.expect("a number") < SIZE as u64, "{seen}");
    // Bytes in flight when it was paused may have to be sent again.
    let in_the_air = 16 * 1024 * 1024;
    assert!(
        resumed.expect("a number") + in_the_air >= paused.unwrap(),
        "{seen}"
    );
    let path = seen["file"].as_str().expect("a URL");
    let path = path.strip_prefix(&app.url).expect("a URL of this server");
    assert!(stored(&app, path).await == bytes);
    assert_eq!(row(&app, path).await.original_filename, "Straße 😀.bin");
    let all = json(send(app.get("/v1/files")).await, 200).await;
    assert_eq!(all["items"].as_array().expect("a list").len(), 1, "{all}");
}
