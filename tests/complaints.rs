//! What users of such servers complain about most. Those that other tests show already:
//!
//! | complaint | test |
//! | --- | --- |
//! | a retried concatenation makes a second file | `tus::joining::retried_concatenation_creates_no_second_file` |
//! | hooks fired twice or never | `faults::killed` |
//! | S3 part 10,001 | `core`'s `uploads::plan`, `bad_input::part_numbers_out_of_range_are_not_found` |
//! | the last answer lost, then 404 | `tus::appending::last_patch_may_be_repeated_if_its_response_was_lost` |
//! | Unicode names | `tus::clients`, `api::content` |
//! | abandoned uploads never expire | `tus::ending::abandoned_uploads_expire` |
//! | rows without objects, objects without rows | `support::invariants`, after every fault |

use crate::support::{
    Installation, Process, TestApp,
    app::{Builder, SOON, json},
};
use futures::TryStreamExt;
use landfall_core::{
    db::Database,
    staging::{SegmentWriter, StagingKey},
};
use landfall_test_servers::{S3Operation, S3Server, wait_until};
use reqwest::{Body, Client, Method, RequestBuilder, Response};
use serde_json::Value;
use std::time::Duration;
use tokio::{io::AsyncWriteExt, net::TcpStream};

const MIB: usize = 1024 * 1024;

fn bytes(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at % 251) as u8).collect()
}

async fn send(request: RequestBuilder) -> Response {
    request.send().await.expect("a response")
}

async fn begin(app: &TestApp, headers: &[(&str, &str)]) -> String {
    let mut post = app.post("/v1/tus").header("Tus-Resumable", "1.0.0");
    for (name, value) in headers {
        post = post.header(*name, *value);
    }
    let response = send(post).await;
    assert_eq!(response.status(), 201, "{response:?}");
    let location = response.headers()["location"].to_str().expect("text");
    location.to_owned()
}

async fn patch(app: &TestApp, path: &str, offset: usize, bytes: &[u8]) -> Response {
    let request = app
        .request(Method::PATCH, path)
        .header("Tus-Resumable", "1.0.0")
        .header("Upload-Offset", offset)
        .header("Content-Type", "application/offset+octet-stream");
    send(request.body(bytes.to_vec())).await
}

#[tokio::test]
async fn concatenation_responds_without_moving_bytes() {
    let app = TestApp::builder().workers(&[]).start().await;
    let mut list = "final;".to_owned();
    let mut keys = Vec::new();
    for _ in 0..4 {
        let headers = [("Upload-Length", "3000000"), ("Upload-Concat", "partial")];
        let path = begin(&app, &headers).await;
        assert_eq!(patch(&app, &path, 0, &bytes(3_000_000)).await.status(), 204);
        let id = path.rsplit('/').next().expect("an id");
        keys.push(StagingKey::segment(
            id.parse().expect("an id"),
            0,
            SegmentWriter::Fence(1),
        ));
        list = format!("{list}{path} ");
    }
    let joined = begin(&app, &[("Upload-Concat", list.trim())]).await;
    let id = joined.rsplit('/').next().expect("an id");
    assert_eq!(app.file(id).await["status"], "staged");
    let landfall = &app.parts.app;
    for key in keys {
        let waits = landfall.staging.len(key).await.expect("staging answers");
        assert_eq!(waits, Some(3_000_000), "the pieces wait as they came");
    }
    let pages: Vec<_> = landfall.staging.list().try_collect().await.expect("a list");
    assert_eq!(pages.concat().len(), 4, "nothing of {id} itself");
}

#[tokio::test]
async fn the_last_response_names_the_file_that_has_the_outcome() {
    let app = TestApp::start().await;
    let path = begin(&app, &[("Upload-Length", "5")]).await;
    let last = patch(&app, &path, 0, b"hello").await;
    let file = last.headers()["landfall-file"].to_str().expect("text");
    let told = json(send(app.get(&format!("{file}?wait=30"))).await, 200).await;
    assert_eq!(told["status"], "stored");
}

#[tokio::test]
async fn locations_survive_a_proxy_that_speaks_tls() {
    let builder = TestApp::builder().set("server.allowed_hosts", "files.example");
    let app = builder.start().await;
    let proxied = app
        .post("/v1/tus")
        .header("Tus-Resumable", "1.0.0")
        .header("Upload-Length", "5")
        .header("Host", "files.example")
        .header("X-Forwarded-Proto", "https");
    let response = send(proxied).await;
    let location = response.headers()["location"].to_str().expect("text");
    assert!(location.starts_with("/v1/tus/"), "{location}");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn parts_in_the_bucket_have_one_size_for_any_chunking() {
    let s3 = S3Server::start().await;
    let builder = TestApp::builder().postgres().s3(&s3);
    let app = builder.set("staging.backend", "s3").start().await;
    let bytes = bytes(30 * MIB + 7);
    let path = begin(&app, &[("Upload-Length", &bytes.len().to_string())]).await;
    // Fit to be parts by themselves, each of another size.
    let mut at = 0;
    for size in [6 * MIB + 1, 7 * MIB, 5 * MIB + 3, 12 * MIB + 3] {
        let piece = &bytes[at..at + size];
        assert_eq!(patch(&app, &path, at, piece).await.status(), 204);
        at += size;
    }
    let id = Value::from(path.rsplit('/').next().expect("an id"));
    let file = app.settled(&id).await;
    assert_eq!(file["status"], "stored", "{file}");
    let content = send(app.client.get(file["url"].as_str().expect("a URL"))).await;
    assert!(content.bytes().await.expect("a body") == bytes);
    // Sent again in parts of 8 MiB, not copied as they lay.
    assert_eq!(s3.calls(S3Operation::UploadPartCopy), 0);
    assert_eq!(s3.calls(S3Operation::UploadPart), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn object_is_readable_when_its_event_comes() {
    object_is_readable(TestApp::builder()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn object_in_a_bucket_is_readable_when_its_event_comes() {
    let s3 = S3Server::start().await;
    object_is_readable(TestApp::builder().s3(&s3)).await;
}

async fn object_is_readable(builder: Builder) {
    let app = builder.start().await;
    app.webhook("/hook", &["file.stored"]).await;
    for number in 1..=20 {
        app.upload("a.txt", format!("content {number}")).await;
        let told = app.receiver.wait_for(number, SOON).await;
        let event: Value = serde_json::from_slice(&told[number - 1].body).expect("an event");
        let url = event["data"]["url"].as_str().expect("a URL");
        assert_eq!(send(app.client.get(url)).await.status(), 200);
    }
}

/// A connection on which an upload has begun that will not end.
async fn unfinished(url: &str, head: &str) -> TcpStream {
    let address = url.strip_prefix("http://").expect("an address");
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let head = format!("{head}\r\nHost: {address}\r\nContent-Length: 5000000\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("a head");
    stream.write_all(&vec![7; 2 * MIB]).await.expect("bytes");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn deploy_during_uploads_leaves_no_unknown_file() {
    let mut installation = Installation::new();
    installation.set("server.shutdown_timeout", "1s");
    let config = installation.config();
    let db = Database::open(&config.database.url, 2)
        .await
        .expect("a database");
    db.migrate_up().await.expect("migrations");
    let mut server = Process::listening(&["serve"], &installation.environment()).await;
    let client = Client::new();
    let post = client.post(format!("{}/v1/tus", server.url));
    let post = post
        .header("Tus-Resumable", "1.0.0")
        .header("Upload-Length", 5_000_000);
    let begun = post.body(Body::default()).send().await.expect("a response");
    let path = begun.headers()["location"]
        .to_str()
        .expect("text")
        .to_owned();
    let patch = format!(
        "PATCH {path} HTTP/1.1\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n\
         Content-Type: application/offset+octet-stream"
    );
    let _resumable = unfinished(&server.url, &patch).await;
    let _single = unfinished(&server.url, "POST /v1/files?filename=a HTTP/1.1").await;
    let staging = config.staging.path.clone();
    let staged = || {
        let entries = std::fs::read_dir(&staging).expect("a folder");
        let names = entries.map(|entry| entry.expect("an entry").file_name());
        let names = names.map(|name| name.into_string().expect("text"));
        names
            .filter(|name| !name.starts_with("probe-") && !name.starts_with('.'))
            .collect::<Vec<_>>()
    };
    wait_until(SOON, async || (staged().len() == 2).then_some(())).await;
    assert!(server.terminate().await.success());
    let left = staged();
    let id = path.rsplit('/').next().expect("an id");
    // The one segment of the resumable upload.
    assert!(
        left.len() == 1 && left[0].starts_with(id),
        "only what can be resumed is left: {left:?}"
    );
    let again = Process::listening(&["serve"], &installation.environment()).await;
    let head = client.head(format!("{}{path}", again.url));
    let head = head.header("Tus-Resumable", "1.0.0").send().await;
    let head = head.expect("a response");
    let kept = head.headers()["upload-offset"].to_str().expect("text");
    let kept: usize = kept.parse().expect("a number");
    assert!(kept >= MIB, "{kept} of {} bytes were kept", 2 * MIB);
}

#[tokio::test]
async fn a_patch_through_another_node_does_not_wait_for_a_stalled_writer() {
    // Two API nodes over one database and one folder, as behind a balancer.
    let mut installation = Installation::new();
    installation.set("server.idle_timeout", "5m");
    let config = installation.config();
    let db = Database::open(&config.database.url, 2)
        .await
        .expect("a database");
    db.migrate_up().await.expect("migrations");
    let one = Process::listening(&["serve"], &installation.environment()).await;
    let two = Process::listening(&["serve"], &installation.environment()).await;
    let client = Client::new();
    let post = client.post(format!("{}/v1/tus", one.url));
    let post = post
        .header("Tus-Resumable", "1.0.0")
        .header("Upload-Length", 5_000_000);
    let begun = post.send().await.expect("a response");
    let path = begun.headers()["location"]
        .to_str()
        .expect("text")
        .to_owned();
    let head = format!(
        "PATCH {path} HTTP/1.1\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\n\
         Content-Type: application/offset+octet-stream"
    );
    let _stalled = unfinished(&one.url, &head).await;
    let offset = wait_until(SOON, async || {
        let head = client.head(format!("{}{path}", two.url));
        let head = head.header("Tus-Resumable", "1.0.0").send().await;
        let head = head.expect("a response");
        let offset = head.headers()["upload-offset"].to_str().expect("text");
        (offset == (2 * MIB).to_string()).then_some(2 * MIB)
    })
    .await;
    let patch = client.patch(format!("{}{path}", two.url));
    let patch = patch
        .header("Tus-Resumable", "1.0.0")
        .header("Upload-Offset", offset)
        .header("Content-Type", "application/offset+octet-stream")
        .body(vec![7; 5_000_000 - offset]);
    let response = patch.timeout(Duration::from_secs(20)).send().await;
    assert_eq!(response.expect("an answer in time").status(), 204);
}
