//! `landfall-bench upload` and `slow`: small runs with complete results and stored files.

use super::{Client, CommandOutput};
use crate::support::TestApp;
use serde_json::Value;
use std::path::Path;

const MIB: u64 = 1024 * 1024;

/// `landfall-bench`, which is built beside the tests.
async fn bench(client: &Client, arguments: &[&str]) -> CommandOutput {
    let program = Path::new(env!("CARGO_BIN_EXE_landfall")).with_file_name("landfall-bench");
    CommandOutput::run_program(&program, arguments, &client.environment).await
}

/// The figures of a run, which has to end well.
async fn measured(client: &Client, arguments: &[&str]) -> Value {
    let mut all = arguments.to_vec();
    all.push("--json");
    bench(client, &all).await.json()
}

/// The files of the server, all of which are stored.
async fn stored(app: &TestApp) -> Vec<Value> {
    let list = app.read("/v1/files?status=stored&limit=100").await;
    list["items"].as_array().expect("a list").clone()
}

fn assert_a_rate(rate: &Value) {
    for figure in ["seconds", "megabytes_per_second", "uploads_per_second"] {
        assert!(rate[figure].as_f64() > Some(0.0), "{figure}: {rate}");
    }
}

async fn two_of_three_mib_by(protocol: &str, further: &[&str], requests: u64) {
    let app = TestApp::start().await;
    let client = Client::of(&app);
    let mut arguments = vec!["upload", "--protocol", protocol, "--size", "3MiB"];
    arguments.extend(["--uploads", "2", "--at-once", "2"]);
    arguments.extend(further);
    let figures = measured(&client, &arguments).await;
    assert_eq!(figures["bytes"], 6 * MIB, "{figures}");
    assert_eq!(figures["requests"], requests, "{figures}");
    assert_a_rate(&figures["acknowledged"]);
    assert_a_rate(&figures["stored"]);
    assert!(figures["stored"]["seconds"].as_f64() >= figures["acknowledged"]["seconds"].as_f64());
    let files = stored(&app).await;
    assert_eq!(files.len(), 2, "{files:?}");
    for file in &files {
        assert_eq!(file["size_bytes"], 3 * MIB);
        assert_eq!(file["sha256"], files[0]["sha256"], "the same bytes in each");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_uploads_are_one_request_each() {
    two_of_three_mib_by("raw", &[], 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_are_one_request_each() {
    two_of_three_mib_by("form", &[], 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_a_request_each_beside_creation_and_completion() {
    two_of_three_mib_by("parts", &["--piece", "64KiB"], 2 * (1 + 48 + 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tus_uploads_are_one_patch_or_one_for_each_piece() {
    two_of_three_mib_by("tus", &[], 2 * 2).await;
    two_of_three_mib_by("tus", &["--piece", "2MiB"], 2 * 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_get_a_table_with_the_processes() {
    let app = TestApp::start().await;
    let client = Client::of(&app);
    let pid = std::process::id().to_string();
    let arguments = ["upload", "--size", "1MiB", "--pid", &pid];
    let text = bench(&client, &arguments).await.done();
    for said in ["acknowledged:", "stored:", "MB/s", "requests:"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    if cfg!(target_os = "linux") {
        for said in ["CPU S/GIB", "ABOVE", &pid] {
            assert!(text.contains(said), "{said}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_tus_server_is_not_polled_and_its_folder_is_synced() {
    let app = TestApp::start().await;
    let client = Client::of(&app);
    let url = format!("{}/v1/tus", app.url);
    let folder = client.folder.path().display().to_string();
    let arguments = ["upload", "--protocol", "tus", "--foreign", "--url", &url];
    let further = ["--size", "100KiB", "--sync", &folder];
    let figures = measured(&client, &[arguments.as_slice(), &further].concat()).await;
    assert_eq!(figures["stored"], Value::Null, "{figures}");
    assert_a_rate(&figures["synced"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_uploads_are_all_accepted() {
    let app = TestApp::start().await;
    let client = Client::of(&app);
    let pid = std::process::id().to_string();
    let arguments = ["slow", "--uploads", "20", "--for", "2s", "--pid", &pid];
    let figures = measured(&client, &arguments).await;
    assert_eq!(figures["uploads"], 20);
    assert!(figures["seconds"].as_f64() >= Some(2.0), "{figures}");
    if cfg!(target_os = "linux") {
        assert!(figures["resident_above_bytes_each"].is_u64(), "{figures}");
        assert_eq!(figures["processes"].as_array().map(Vec::len), Some(2));
    }
    let list = app.read("/v1/files?limit=100").await;
    let files = list["items"].as_array().expect("a list");
    assert_eq!(files.len(), 20);
    assert!(
        files.iter().all(|file| file["size_bytes"] == 2048),
        "{files:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_by_the_server_ends_the_run() {
    let app = TestApp::builder()
        .set("uploads.max_file_size", "1MiB")
        .start()
        .await;
    let client = Client::of(&app);
    let arguments = ["upload", "--protocol", "tus", "--size", "2MiB"];
    let told = bench(&client, &arguments).await.failed();
    assert!(told.contains("413") && told.contains("too_large"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_process_is_named_before_anything_is_sent() {
    let app = TestApp::start().await;
    let client = Client::of(&app);
    let arguments = ["upload", "--size", "1KiB", "--pid", "4294967295"];
    let ran = bench(&client, &arguments).await;
    if cfg!(target_os = "linux") {
        let told = ran.failed();
        assert!(told.contains("there is no process 4294967295"), "{told}");
        assert!(stored(&app).await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn part_sizes_chosen_by_the_server_are_reported() {
    let app = TestApp::start().await;
    let client = Client::of(&app);
    let arguments = ["upload", "--protocol", "parts", "--size", "100KiB"];
    let further = ["--piece", "1KiB", "--at-once", "4"];
    let figures = measured(&client, &[arguments.as_slice(), &further].concat()).await;
    assert_eq!(figures["piece_bytes"], 64 * 1024, "{figures}");
    assert_eq!(figures["requests"], 1 + 2 + 1, "{figures}");
}

#[tokio::test(flavor = "multi_thread")]
async fn landfall_protocols_are_not_used_with_other_servers() {
    let app = TestApp::start().await;
    let client = Client::of(&app);
    let arguments = ["upload", "--protocol", "form", "--foreign"];
    let told = bench(&client, &arguments).await.misused();
    assert!(told.contains("--foreign requires"), "{told}");
}
