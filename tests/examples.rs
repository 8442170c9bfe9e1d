//! The examples, run as their readers would. The page with Uppy is run by `tus::clients`.

use crate::support::{TestApp, app::json};
use landfall_core::digest::Sha256Digest;
use std::{
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

const WITHIN: Duration = Duration::from_secs(120);

fn content() -> Vec<u8> {
    (0..20_000_003_u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

async fn run(app: &TestApp, program: &str, example: &str, arguments: &[&str]) -> Output {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut command = Command::new(program);
    command.arg(examples.join(example)).args(arguments);
    command.env("LANDFALL_URL", &app.url).kill_on_drop(true);
    let output = tokio::time::timeout(WITHIN, command.output()).await;
    output.expect("it ends in time").expect("it starts")
}

fn said(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout.clone()).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn file_sent_by_curl_is_stored_and_read_back() {
    let app = TestApp::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("été.bin");
    std::fs::write(&file, content()).unwrap();
    let output = run(&app, "sh", "curl.sh", &[&file.display().to_string()]).await;
    assert!(said(&output).ends_with("read back: the same bytes\n"));
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs Python: scripts/test runs it"
)]
async fn parts_sent_by_python_are_resumed_and_stored() {
    let app = TestApp::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("été.bin");
    let bytes = content();
    std::fs::write(&file, &bytes).unwrap();
    let file = file.display().to_string();
    let first = said(&run(&app, "python3", "upload.py", &[&file]).await);
    assert!(first.contains("3 of 3 sent"), "{first}");

    // An upload that was interrupted after one part.
    let body = serde_json::json!({
        "original_filename": "été.bin", "total_size_bytes": bytes.len(), "chunk_size_bytes": 8 << 20,
    });
    let begun = app.post("/v1/uploads").json(&body).send().await.unwrap();
    let session = json(begun, 201).await;
    let id = session["id"].as_str().unwrap();
    let part = app.request(reqwest::Method::PUT, &format!("/v1/uploads/{id}/parts/2"));
    let part = part
        .body(bytes[8 << 20..16 << 20].to_vec())
        .send()
        .await
        .unwrap();
    json(part, 200).await;
    let again = said(&run(&app, "python3", "upload.py", &[&file, "--resume", id]).await);
    assert!(again.contains("2 of 3 sent"), "{again}");
    let stored = app.file(session["file_id"].as_str().unwrap()).await;
    assert_eq!(stored["sha256"], Sha256Digest::compute(&bytes).to_string());

    std::fs::write(folder.path().join("other"), b"another file").unwrap();
    let other = folder.path().join("other").display().to_string();
    let refused = run(&app, "python3", "upload.py", &[&other, "--resume", id]).await;
    assert!(!refused.status.success());
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs Python: scripts/test runs it"
)]
async fn python_receiver_accepts_only_signed_requests() {
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let app = TestApp::start().await;
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut command = Command::new("python3");
    command.arg(examples.join("receiver.py")).arg("0");
    command.env("LANDFALL_WEBHOOK_SECRET", SECRET);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut receiver = command.kill_on_drop(true).spawn().expect("it starts");
    let mut lines = BufReader::new(receiver.stdout.take().expect("piped")).lines();
    let mut said = async || {
        let line = tokio::time::timeout(WITHIN, lines.next_line()).await;
        let line = line.expect("a line in time").expect("a line");
        line.expect("it goes on")
    };
    let listening = said().await;
    let url = listening
        .strip_prefix("listening on ")
        .expect("where it listens");

    let forged = app.client.post(url).header("webhook-id", "forged");
    let forged = forged
        .header("webhook-timestamp", "1")
        .body("{}")
        .send()
        .await;
    assert_eq!(forged.expect("a response").status(), 401);
    let webhook = serde_json::json!({ "url": url, "secret": SECRET });
    let created = app.post("/v1/webhooks").json(&webhook).send().await;
    json(created.expect("a response"), 201).await;
    let file = app.upload("told.txt", "hello").await;
    let told = said().await;
    let id = file["id"].as_str().expect("an id");
    assert!(
        told.contains(" file.stored ") && told.contains(id),
        "{told}"
    );
}
