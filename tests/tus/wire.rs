//! Connections that end, stall or ask first.

use super::{OFFSET_STREAM, answered, begin, offset, patch, send, stored};
use crate::support::TestApp;
use entity::{UploadId, upload};
use landfall_test_servers::wait_until;
use sea_orm::EntityTrait;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

const SOON: Duration = super::SOON;

/// A connection on which a PATCH at the offset has begun and its first bytes are sent.
async fn begun(app: &TestApp, path: &str, at: usize, length: usize, bytes: &[u8]) -> TcpStream {
    let address = app.url.strip_prefix("http://").expect("an address");
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let head = format!(
        "PATCH {path} HTTP/1.1\r\nHost: {address}\r\nTus-Resumable: 1.0.0\r\n\
         Content-Type: {OFFSET_STREAM}\r\nUpload-Offset: {at}\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("a head");
    stream.write_all(bytes).await.expect("bytes");
    stream.flush().await.expect("bytes");
    stream
}

async fn until_offset(app: &TestApp, path: &str, wanted: u64) {
    wait_until(SOON, async || {
        (offset(app, path).await == wanted).then_some(())
    })
    .await;
}

#[tokio::test]
async fn bytes_before_a_fin_are_kept() {
    let app = TestApp::start().await;
    let path = begin(&app, 10).await;
    let mut stream = begun(&app, &path, 0, 10, b"hello").await;
    stream.shutdown().await.unwrap();
    until_offset(&app, &path, 5).await;
    answered(&send(patch(&app, &path, 5, "world")).await, 204);
    assert_eq!(stored(&app, &path).await, b"helloworld");
}

#[tokio::test]
async fn bytes_before_a_reset_are_kept() {
    let app = TestApp::start().await;
    let path = begin(&app, 10).await;
    let stream = begun(&app, &path, 0, 10, b"hello").await;
    until_offset(&app, &path, 5).await;
    stream.set_zero_linger().unwrap();
    drop(stream);
    answered(&send(patch(&app, &path, 5, "world")).await, 204);
    assert_eq!(stored(&app, &path).await, b"helloworld");
}

#[tokio::test]
async fn stalled_patch_is_preempted_by_the_next() {
    let app = TestApp::start().await;
    let path = begin(&app, 10).await;
    let mut stalled = begun(&app, &path, 0, 10, b"hello").await;
    until_offset(&app, &path, 5).await;
    let began = Instant::now();
    answered(&send(patch(&app, &path, 5, "world")).await, 204);
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "the stalled one was waited for"
    );
    let mut response = Vec::new();
    timeout(SOON, stalled.read_to_end(&mut response))
        .await
        .expect("the stalled one is told")
        .unwrap();
    assert!(
        response.starts_with(b"HTTP/1.1 423 "),
        "{}",
        String::from_utf8_lossy(&response)
    );
    assert_eq!(stored(&app, &path).await, b"helloworld");
}

#[tokio::test]
async fn head_after_a_lost_connection_has_all_received_bytes() {
    let app = TestApp::start().await;
    let path = begin(&app, 10).await;
    let _stalled = begun(&app, &path, 0, 10, b"hello").await;
    // From here on the writer has the bytes, for less than the pause after which it counts them.
    let id = path.rsplit('/').next().expect("an id");
    let id: UploadId = id.parse().expect("an id");
    wait_until(SOON, async || {
        let row = upload::Entity::find_by_id(id)
            .one(app.parts.app.db.read())
            .await;
        row.expect("a row").and_then(|row| row.lease_expires_at)
    })
    .await;
    assert_eq!(offset(&app, &path).await, 5);
    answered(&send(patch(&app, &path, 5, "world")).await, 204);
}

#[tokio::test]
async fn body_that_pauses_for_too_long_ends_with_408() {
    let app = TestApp::builder()
        .set("server.idle_timeout", "1s")
        .start()
        .await;
    let path = begin(&app, 10).await;
    let mut stream = begun(&app, &path, 0, 10, b"hello").await;
    let mut response = Vec::new();
    timeout(SOON, stream.read_to_end(&mut response))
        .await
        .expect("a response")
        .unwrap();
    assert!(
        response.starts_with(b"HTTP/1.1 408 "),
        "{}",
        String::from_utf8_lossy(&response)
    );
    assert_eq!(offset(&app, &path).await, 5);
}

#[tokio::test]
async fn expectations_are_answered_before_the_body() {
    let app = TestApp::start().await;
    let address = app.url.strip_prefix("http://").unwrap().to_owned();
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let head = format!(
        "POST /v1/tus HTTP/1.1\r\nHost: {address}\r\nTus-Resumable: 1.0.0\r\nExpect: 100-continue\r\n\
         Content-Type: {OFFSET_STREAM}\r\nUpload-Length: 5\r\nContent-Length: 5\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    timeout(SOON, stream.read_exact(&mut interim))
        .await
        .expect("100")
        .unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"hello").await.unwrap();
    let mut response = Vec::new();
    timeout(SOON, stream.read_to_end(&mut response))
        .await
        .unwrap()
        .unwrap();
    assert!(
        response.starts_with(b"HTTP/1.1 201 "),
        "{}",
        String::from_utf8_lossy(&response)
    );
}

#[tokio::test]
async fn the_offset_of_a_slow_patch_is_reported_as_it_grows() {
    let app = TestApp::start().await;
    let path = begin(&app, 1000).await;
    let mut stream = begun(&app, &path, 0, 1000, b"x").await;
    let trickle = tokio::spawn(async move {
        // Never a pause that would have the bytes counted for it.
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        for _ in 1..1000 {
            ticks.tick().await;
            stream.write_all(b"x").await.expect("it is taken in");
        }
    });
    wait_until(SOON, async || (offset(&app, &path).await > 0).then_some(())).await;
    assert!(!trickle.is_finished(), "the bytes were still coming");
    trickle.abort();
}
