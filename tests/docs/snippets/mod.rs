//! Runs the examples in docs/clients.md and docs/webhooks.md against a server.

mod client;
mod receiver;

use super::{
    read,
    shell::{commands, run},
};
use crate::support::{
    TestApp,
    app::{SOON, json},
};
use http::StatusCode;
use landfall_core::digest::Sha256Digest;
use landfall_test_servers::{port::free_port, wait_until};
use serde_json::{Value, json};
use std::{
    ffi::OsString,
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

const SERVER: &str = "http://127.0.0.1:8080";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const REPORT: &[u8] = b"%PDF-1.7\nthe quarterly report\n";
const TIMEOUT: Duration = Duration::from_secs(60);

/// Returns the code blocks of a page in a language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let page = read(page);
    let start = format!("```{language}\n");
    let blocks = page.split(start.as_str()).skip(1);
    blocks
        .map(|block| block.split("```").next().expect("code").to_owned())
        .collect()
}

fn python() -> OsString {
    std::env::var_os("LANDFALL_TEST_PYTHON")
        .expect("LANDFALL_TEST_PYTHON is not set: scripts/test installs the Python clients")
}

/// Makes the installed JavaScript packages available to modules in a folder.
fn link_node_modules(folder: &Path) {
    let modules = std::env::var_os("LANDFALL_TEST_NODE_MODULES")
        .expect("LANDFALL_TEST_NODE_MODULES is not set: scripts/test installs the packages");
    std::os::unix::fs::symlink(modules, folder.join("node_modules")).expect("a link");
}

fn folder_with_report() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("report.pdf"), REPORT).expect("a file");
    folder
}

async fn output(mut command: Command, folder: &Path) -> Output {
    command.current_dir(folder).kill_on_drop(true);
    let output = tokio::time::timeout(TIMEOUT, command.output()).await;
    output.expect("it ends in time").expect("it starts")
}

/// The report was stored with its name, type and bytes.
async fn assert_stored(app: &TestApp, id: &str) {
    let file = app.settled(&json!(id)).await;
    assert_eq!(file["status"], "stored", "{file}");
    assert_eq!(file["original_filename"], "report.pdf");
    assert_eq!(file["content_type"], "application/pdf");
    assert_eq!(file["sha256"], Sha256Digest::compute(REPORT).to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_curl_command_for_clients_uploads_the_file() {
    let app = TestApp::start().await;
    let folder = folder_with_report();
    let commands = commands("docs/clients.md");
    for command in &commands {
        let response = run(&command.replace(SERVER, &app.url), folder.path(), &[]).await;
        let file: Value = serde_json::from_str(&response).expect("JSON");
        assert_stored(&app, file["id"].as_str().expect("an id")).await;
        if command.contains("metadata=") {
            assert_eq!(file["metadata"], json!({"order": 7}));
        }
    }
    assert_eq!(commands.len(), 4, "commands were run");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs Python: scripts/test runs it"
)]
async fn every_python_client_uploads_the_file() {
    let app = TestApp::start().await;
    let folder = folder_with_report();
    let blocks = blocks("docs/clients.md", "python");
    for block in &blocks {
        let mut command = Command::new(python());
        command.arg("-c").arg(block.replace(SERVER, &app.url));
        let output = output(command, folder.path()).await;
        assert!(output.status.success(), "{output:?}");
        let printed = String::from_utf8(output.stdout).expect("text");
        let id = printed.trim().strip_prefix("uploaded ").expect("the id");
        assert_stored(&app, id).await;
    }
    assert_eq!(blocks.len(), 2, "examples were run");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs Node.js: scripts/test runs it"
)]
async fn javascript_client_uploads_the_file() {
    let app = TestApp::start().await;
    let folder = folder_with_report();
    link_node_modules(folder.path());
    let mut blocks = blocks("docs/clients.md", "js");
    // Uppy needs a browser: `tus::clients` runs it in one.
    blocks.retain(|block| !block.contains("@uppy/core"));
    let [block] = &blocks[..] else {
        panic!("one example uses tus-js-client: {blocks:?}");
    };
    let module = folder.path().join("upload.mjs");
    std::fs::write(&module, block.replace(SERVER, &app.url)).expect("a file");
    let mut command = Command::new("node");
    command.arg(&module);
    let output = output(command, folder.path()).await;
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout).expect("text");
    let id = printed.trim().strip_prefix("uploaded ").expect("the id");
    assert_stored(&app, id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rust_client_uploads_the_file() {
    assert_eq!(
        blocks("docs/clients.md", "rust"),
        [include_str!("client.rs")]
    );
    let app = TestApp::start().await;
    let folder = folder_with_report();
    let path = folder.path().join("report.pdf").display().to_string();
    let id = client::upload(&app.url, &path, "report.pdf").await;
    assert_stored(&app, &id.expect("it is uploaded")).await;
}

/// A receiver of docs/webhooks.md, killed on drop.
struct RunningReceiver {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    url: String,
}

impl RunningReceiver {
    async fn start(mut command: Command, folder: &Path, port: u16) -> Self {
        command.current_dir(folder).stdout(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let address = format!("127.0.0.1:{port}");
        wait_until(TIMEOUT, async || {
            tokio::net::TcpStream::connect(&address).await.is_ok()
        })
        .await;
        Self {
            _child: child,
            lines,
            url: format!("http://{address}/hook"),
        }
    }

    /// It rejects a forged request, and accepts a delivery.
    async fn verifies_deliveries(mut self, app: &TestApp) {
        let forged = app.client.post(&self.url).header("webhook-id", "forged");
        let forged = forged
            .header("webhook-timestamp", "1")
            .header("webhook-signature", "v1,Zm9yZ2Vk")
            .body(r#"{"type":"file.stored","data":{}}"#);
        assert_eq!(forged.send().await.expect("a response").status(), 400);
        let webhook = json!({ "url": self.url, "secret": SECRET, "event_types": ["file.stored"] });
        let created = app.post("/v1/webhooks").json(&webhook).send().await;
        json(created.expect("a response"), 201).await;
        let file = app.upload("announced.txt", "announced").await;
        let id = file["id"].as_str().expect("an id").to_owned();
        let digest = Sha256Digest::compute(b"announced").to_string();
        let printed = async {
            while let Some(line) = self.lines.next_line().await.expect("text") {
                if line.contains(&id) {
                    return line;
                }
            }
            panic!("the receiver ended");
        };
        let line = tokio::time::timeout(SOON, printed).await.expect("an event");
        assert_eq!(line, format!("{id} {digest}"));
        let delivered = wait_until(SOON, async || {
            let events = app.read("/v1/events").await;
            let delivery = events["items"][0]["deliveries"][0].clone();
            (delivery["status"] == "delivered").then_some(delivery)
        })
        .await;
        assert_eq!(delivered["attempt_count"], 1, "{delivered}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs Python: scripts/test runs it"
)]
async fn python_receiver_verifies_deliveries() {
    let app = TestApp::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let blocks = blocks("docs/webhooks.md", "python");
    let code = blocks.concat().replace("whsec_…", SECRET);
    std::fs::write(folder.path().join("hook.py"), code).expect("a file");
    let port = free_port();
    let mut command = Command::new(python());
    command
        .args(["-m", "flask", "--app", "hook", "run", "--port"])
        .arg(port.to_string());
    let receiver = RunningReceiver::start(command, folder.path(), port).await;
    receiver.verifies_deliveries(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs Node.js: scripts/test runs it"
)]
async fn javascript_receiver_verifies_deliveries() {
    let app = TestApp::start().await;
    let folder = tempfile::tempdir().expect("a folder");
    link_node_modules(folder.path());
    let port = free_port();
    let code = blocks("docs/webhooks.md", "js").concat();
    let code = code
        .replace("whsec_…", SECRET)
        .replace("9000", &port.to_string());
    std::fs::write(folder.path().join("hook.mjs"), code).expect("a file");
    let mut command = Command::new("node");
    command.arg("hook.mjs");
    let receiver = RunningReceiver::start(command, folder.path(), port).await;
    receiver.verifies_deliveries(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rust_receiver_verifies_deliveries() {
    assert_eq!(
        blocks("docs/webhooks.md", "rust"),
        [include_str!("receiver.rs")]
    );
    let app = TestApp::start().await;
    let webhook = app.webhook("/hook", &["file.stored"]).await;
    let secret = webhook["secret"].as_str().expect("a secret");
    app.upload("announced.txt", "announced").await;
    let requests = app.receiver.wait_for(1, SOON).await;
    let request = &requests[0];
    let status = receiver::receive(secret, &request.headers, &request.body);
    assert_eq!(status, StatusCode::NO_CONTENT);
    let forged = receiver::receive(secret, &request.headers, b"{}");
    assert_eq!(forged, StatusCode::BAD_REQUEST);
    let other = receiver::receive(SECRET, &request.headers, &request.body);
    assert_eq!(other, StatusCode::BAD_REQUEST);
}
