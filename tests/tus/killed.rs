//! SIGKILL while bytes arrive: the offset reported afterwards is durable, and the upload can be resumed.

use super::OFFSET_STREAM;
use crate::support::{Installation, Process};
use landfall_test_servers::wait_until;
use reqwest::{Client, Response};
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::{io::AsyncWriteExt, net::TcpStream};

const SOON: Duration = Duration::from_secs(30);

/// The killed process may have claimed the file already: its lease of 30 s has to end first.
const RESCUED: Duration = Duration::from_secs(90);

struct Server {
    process: Process,
    client: Client,
}

impl Server {
    async fn start(installation: &Installation, failpoint: Option<&str>) -> Self {
        let mut environment = installation.environment();
        environment
            .extend(failpoint.map(|value| ("LANDFALL_FAILPOINT".to_owned(), value.to_owned())));
        let process = Process::listening(&["up"], &environment).await;
        Self {
            process,
            client: client(),
        }
    }

    async fn begin(&self, length: usize) -> String {
        let request = self.client.post(format!("{}/v1/tus", self.process.url));
        let request = request
            .header("Tus-Resumable", "1.0.0")
            .header("Upload-Length", length);
        let response = request.send().await.expect("a response");
        assert_eq!(response.status(), 201);
        response.headers()["location"]
            .to_str()
            .expect("text")
            .to_owned()
    }

    async fn offset(&self, path: &str) -> usize {
        let request = self.client.head(format!("{}{path}", self.process.url));
        let response = request
            .header("Tus-Resumable", "1.0.0")
            .send()
            .await
            .expect("a response");
        assert_eq!(response.status(), 200);
        let offset = response.headers()["upload-offset"].to_str().expect("text");
        offset.parse().expect("a number")
    }

    async fn patch(&self, path: &str, offset: usize, bytes: &[u8]) -> reqwest::Result<Response> {
        let request = self.client.patch(format!("{}{path}", self.process.url));
        let request = request
            .header("Tus-Resumable", "1.0.0")
            .header("Upload-Offset", offset);
        request
            .header("Content-Type", OFFSET_STREAM)
            .body(bytes.to_vec())
            .send()
            .await
    }

    async fn stored(&self, path: &str) -> Vec<u8> {
        let file = format!("{}{}", self.process.url, path.replace("tus", "files"));
        let until = Instant::now() + RESCUED;
        loop {
            let look = self.client.get(format!("{file}?wait=10")).send().await;
            let told: Value = look.expect("a response").json().await.expect("a File");
            if told["status"] == "stored" {
                break;
            }
            assert!(Instant::now() < until, "{told}");
        }
        let content = self.client.get(format!("{file}/content")).send().await;
        content
            .expect("a response")
            .bytes()
            .await
            .expect("bytes")
            .to_vec()
    }
}

fn client() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().build().expect("a client")
}

fn bytes(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at % 251) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn offset_reported_after_a_kill_is_durable_and_the_upload_resumes() {
    let installation = Installation::new();
    let mut server = Server::start(&installation, None).await;
    let bytes = bytes(20_000_000);
    let path = server.begin(bytes.len()).await;
    let address = server
        .process
        .url
        .strip_prefix("http://")
        .expect("an address");
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let head = format!(
        "PATCH {path} HTTP/1.1\r\nHost: {address}\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n\
         Content-Type: {OFFSET_STREAM}\r\nContent-Length: {}\r\n\r\n",
        bytes.len()
    );
    stream.write_all(head.as_bytes()).await.expect("a head");
    let sent = bytes.clone();
    // One chunk per poll: the body continues while the test polls, and ends only with the server.
    let (look, mut looks) = tokio::sync::mpsc::unbounded_channel();
    let sending = tokio::spawn(async move {
        for piece in sent.chunks(50_000).take(300) {
            if looks.recv().await.is_none() || stream.write_all(piece).await.is_err() {
                return;
            }
        }
    });
    let told = wait_until(SOON, async || {
        look.send(()).expect("the sender sends");
        let offset = server.offset(&path).await;
        (offset > 0).then_some(offset)
    })
    .await;
    server.process.kill().await;
    drop(look);
    sending.await.expect("the sender ends");
    let server = Server::start(&installation, None).await;
    let offset = server.offset(&path).await;
    assert!(
        offset >= told && offset <= 15_000_000,
        "{offset} after {told}"
    );
    let response = server
        .patch(&path, offset, &bytes[offset..])
        .await
        .expect("a response");
    assert_eq!(response.status(), 204);
    assert!(server.stored(&path).await == bytes);
}

/// `sent` is the number of bytes before the kill: if few, all of them are counted without being stored first.
async fn killed_at(step: &str, sent: usize, counted: bool) {
    let installation = Installation::new();
    let mut server = Server::start(&installation, Some(&format!("{step}=kill"))).await;
    let bytes = bytes(100_000);
    let path = server.begin(bytes.len()).await;
    let cut_off = server.patch(&path, 0, &bytes[..sent]).await;
    assert!(cut_off.is_err(), "{cut_off:?}");
    server.process.dies_within(SOON).await;
    let server = Server::start(&installation, None).await;
    let offset = server.offset(&path).await;
    assert_eq!(offset, if counted { sent } else { 0 });
    let response = server
        .patch(&path, offset, &bytes[offset..])
        .await
        .expect("a response");
    assert_eq!(response.status(), 204);
    assert!(server.stored(&path).await == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_synced_but_not_counted_are_sent_again() {
    killed_at("uploads.synced", 60_000, false).await;
    killed_at("uploads.synced", 100_000, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_counted_but_not_acknowledged_are_kept() {
    killed_at("uploads.counted", 60_000, true).await;
    killed_at("uploads.counted", 100_000, true).await;
}
