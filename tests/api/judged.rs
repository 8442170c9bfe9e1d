//! schemathesis generates valid and invalid requests from the definition, and checks each response against it.

use crate::support::TestApp;
use landfall_core::tokens::{self, TokenScope};
use secrecy::ExposeSecret;
use serde_json::Value;
use std::{path::Path, time::Duration};
use tokio::process::Command;

/// For each generated example of an operation.
const PER_EXAMPLE: Duration = Duration::from_secs(24);

/// Examples generated for each operation, unless `LANDFALL_TEST_EXAMPLES` says otherwise.
const EXAMPLES: u32 = 10;

/// The number of operations, without those of tus: an upload takes several requests, so the response to a single
/// generated one means little. The tus tests check their responses against the definition instead.
fn judged() -> usize {
    let spec: Value = serde_json::from_str(&landfall::api::spec()).expect("JSON");
    let paths = spec["paths"].as_object().expect("paths").iter();
    // tests/tus checks uploads in several requests.
    let is_tus = |path: &str| path.starts_with("/v1/tus") || path.contains("/{secret}/tus");
    let judged = paths.filter(|(path, _)| !is_tus(path));
    judged
        .map(|(_, operations)| operations.as_object().expect("operations").len())
        .sum()
}

/// Fails with its report when it finds anything.
async fn judge(app: &TestApp, arguments: &[&str]) {
    let python = std::env::var("LANDFALL_TEST_PYTHON")
        .expect("LANDFALL_TEST_PYTHON names a Python with schemathesis; scripts/test installs it");
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/schemathesis.toml");
    let examples = std::env::var("LANDFALL_TEST_EXAMPLES").ok();
    let examples = examples.map_or(EXAMPLES, |examples| examples.parse().expect("a number"));
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(python);
    command
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(rules)
        .args(["run", &format!("{}/openapi.json", app.url), "--no-color"])
        .args(["--max-examples", &examples.to_string()])
        .args(arguments)
        .current_dir(folder.path())
        .kill_on_drop(true);
    let output = tokio::time::timeout(PER_EXAMPLE * examples, command.output()).await;
    let output = output
        .expect("schemathesis ends in time")
        .expect("Python starts; scripts/test installs it");
    let report = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{report}\n{errors}");
    let tested = format!("Tested: {}\n", judged());
    assert!(report.contains(&tested), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs Python: scripts/test runs it"
)]
async fn schemathesis_finds_no_undocumented_response() {
    let app = TestApp::builder().set("auth.mode", "tokens").start().await;
    let all = [TokenScope::Upload, TokenScope::Read, TokenScope::Admin];
    let landfall = &app.parts.app;
    let made = tokens::create(&landfall.db, &landfall.clock, "judge", &all, None).await;
    let (_, token) = made.expect("a token");
    let bearer = format!("Authorization: Bearer {}", token.expose_secret());
    judge(&app, &["--header", &bearer]).await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs Python: scripts/test runs it"
)]
async fn schemathesis_finds_no_undocumented_response_without_tokens() {
    let app = TestApp::start().await;
    // No tokens are required here.
    let without = [
        "--exclude-checks",
        "ignored_auth",
        "--generation-with-security-parameters",
        "false",
    ];
    judge(&app, &without).await;
}
