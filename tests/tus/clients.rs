//! Outside judges: the clients that people use.

use super::{row, stored};
use crate::support::TestApp;
use std::path::Path;
use tokio::process::Command;

/// What `scripts/test` installs.
fn modules() -> String {
    std::env::var("LANDFALL_TEST_NODE_MODULES").expect(
        "LANDFALL_TEST_NODE_MODULES names a folder with tus-js-client; scripts/test installs it",
    )
}

async fn node(script: &str, arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(script);
    let output = Command::new("node")
        .arg(script)
        .args(arguments)
        .env("LANDFALL_TEST_NODE_MODULES", modules())
        .output()
        .await
        .expect("node is installed; scripts/test installs it");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout)
        .expect("text")
        .trim()
        .to_owned()
}

#[tokio::test]
async fn tus_js_client_uploads_in_each_of_its_ways() {
    let app = TestApp::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file.bin");
    let bytes: Vec<u8> = (0..2_000_003_u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    std::fs::write(&file, &bytes).unwrap();
    let endpoint = format!("{}/v1/tus", app.url);
    let file = file.display().to_string();
    for way in [
        "whole", "chunks", "parallel", "creation", "deferred", "override", "resumed",
    ] {
        let url = node("tus.mjs", &[&endpoint, way, &file]).await;
        let path = url.strip_prefix(&app.url).expect("a URL of this server");
        assert!(stored(&app, path).await == bytes, "{way}: other bytes");
        assert_eq!(
            row(&app, path).await.original_filename,
            "Straße 😀.bin",
            "{way}"
        );
    }
}
