//! How a process starts beside others and how it ends.

use crate::support::{
    Installation, Process, TestApp,
    app::{SOON, json},
    process::command,
};
use entity::{
    delivery::{self, DeliveryStatus},
    file,
};
use landfall_core::db::Database;
use landfall_test_servers::{Behaviour, PostgresServer, Receiver, wait_until};
use rustix::process::Signal;
use sea_orm::EntityTrait;
use std::{process::Stdio, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::Command,
};

/// Longer than any test ends a process in, shorter than what it would wait for by itself.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Shorter than `server.shutdown_timeout`.
const WORK: Duration = Duration::from_secs(3);

/// A delivery that takes longer than 250 ms gives its slot to another and moves to a slow one.
const BRIEF_WORK: Duration = Duration::from_millis(150);

/// An upload of `hello` that the server has begun to read, and that waits for its bytes.
async fn begun_upload(up: &Process) -> TcpStream {
    let address = up.url.strip_prefix("http://").expect("an address");
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let head = format!(
        "POST /v1/files?filename=a HTTP/1.1\r\nHost: {address}\r\nContent-Length: 5\r\n\
         Expect: 100-continue\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("a head");
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.expect("a response");
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

async fn until_it_refuses_connections(up: &Process) {
    let address = up.url.strip_prefix("http://").expect("an address");
    wait_until(SOON, async || TcpStream::connect(address).await.is_err()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_lets_an_upload_and_a_delivery_finish() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let installation = Installation::new();
    let receiver = Receiver::start().await;
    receiver.set("/hook", Behaviour::stall(WORK));
    let mut up = Process::listening(&["up"], &installation.environment()).await;
    let client = reqwest::Client::new();
    let body = serde_json::json!({ "url": receiver.url("/hook") });
    let webhook = client.post(format!("{}/v1/webhooks", up.url)).json(&body);
    json(webhook.send().await.expect("a response"), 201).await;
    let first = client.post(format!("{}/v1/files?filename=first", up.url));
    json(first.body("hello").send().await.expect("a response"), 202).await;
    receiver.wait_for_at("/hook", 1, SOON).await;

    let mut upload = begun_upload(&up).await;
    up.signal(Signal::TERM);
    until_it_refuses_connections(&up).await;
    upload.write_all(b"hello").await.expect("the bytes");
    let mut response = String::new();
    upload
        .read_to_string(&mut response)
        .await
        .expect("a response");
    assert!(response.starts_with("HTTP/1.1 202 "), "{response}");
    assert_eq!(up.ends_within(SOON).await.code(), Some(0));

    let url = installation.config().database.url;
    let db = Database::open(&url, 1).await.expect("a database");
    let deliveries = delivery::Entity::find().all(db.read()).await;
    let deliveries = deliveries.expect("deliveries");
    assert_eq!(deliveries.len(), 1);
    assert_eq!(deliveries[0].status, DeliveryStatus::Delivered);
    let files = file::Entity::find().all(db.read()).await.expect("files");
    assert_eq!(files.len(), 2, "the upload was acknowledged, and is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_printed_by_up_sends_a_file() {
    let installation = Installation::new();
    let mut up = command(&["up"], &installation.environment());
    up.stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut up = up.spawn().expect("landfall starts");
    let mut said = BufReader::new(up.stderr.take().expect("piped")).lines();
    let line = loop {
        let line = tokio::time::timeout(SOON, said.next_line()).await;
        let line = line.expect("a line in time").expect("a line");
        let line = line.expect("it says how to send a file");
        if let Some((_, line)) = line.split_once("curl ") {
            break line.to_owned();
        }
    };
    let shell = Command::new("sh")
        .args(["-c", &format!("curl -sS {line}")])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let response = shell.await.expect("a shell runs");
    let file: serde_json::Value = serde_json::from_slice(&response.stdout)
        .unwrap_or_else(|error| panic!("{line}: {error}: {response:?}"));
    assert_eq!(file["original_filename"], "README.md", "{file}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_one_slot_does_one_job_at_a_time() {
    let app = TestApp::builder().workers(&[]).start().await;
    for path in ["/one", "/other"] {
        app.receiver.set(path, Behaviour::stall(BRIEF_WORK));
        app.webhook(path, &[]).await;
    }
    app.upload("told.txt", "hello").await;
    let arguments = [
        "worker",
        "--queues",
        "finalize,deliver",
        "--concurrency",
        "1",
    ];
    let mut worker = Process::spawn(&arguments, &app.installation.environment());
    let told = app.receiver.wait_for(2, SOON).await;
    let between = told[1].at.duration_since(told[0].at);
    assert!(between >= BRIEF_WORK, "{between:?}");
    assert!(worker.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_process_at_once() {
    let installation = Installation::new();
    for second in [Signal::TERM, Signal::INT] {
        let mut up = Process::listening(&["up"], &installation.environment()).await;
        let _upload = begun_upload(&up).await;
        up.signal(Signal::TERM);
        until_it_refuses_connections(&up).await;
        assert!(up.is_running(), "it waits for the upload");
        up.signal(second);
        assert_eq!(up.ends_within(AT_ONCE).await.code(), Some(130));
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn processes_that_migrate_at_once_do_it_once() {
    let mut on_postgres = Installation::new();
    let url = PostgresServer::shared().create_database().await;
    on_postgres.set("database.url", &url);
    for installation in [Installation::new(), on_postgres] {
        let environment = installation.environment();
        let migrating = (0..4).map(|_| command(&["migrate", "up"], &environment).output());
        for output in futures::future::join_all(migrating).await {
            let output = output.expect("landfall runs");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{said}");
        }
        let config = installation.config();
        let db = Database::open(&config.database.url, 1).await;
        let current = db.expect("a database").require_current().await;
        current.expect("every migration was applied");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_do_not_share_a_data_folder() {
    let installation = Installation::new();
    let mut first = Process::listening(&["up"], &installation.environment()).await;
    let second = command(&["up"], &installation.environment()).output().await;
    let second = second.expect("landfall runs");
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("data"), "the folder is named: {said}");
    assert!(first.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named() {
    let app = TestApp::builder().workers(&[]).start().await;
    let mut installation = Installation::new();
    let taken = app.url.strip_prefix("http://").expect("an address");
    installation.set("server.bind", taken);
    let output = command(&["up"], &installation.environment()).output().await;
    let output = output.expect("landfall runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("server.bind") && said.contains(taken),
        "{said}"
    );
}
