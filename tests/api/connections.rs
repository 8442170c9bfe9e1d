//! Clients that do not behave: gone in the middle, silent, or as slow as they can be.

use super::{nothing_is_left, without_workers};
use crate::support::{TestApp, app::SOON};
use landfall_test_servers::wait_until;
use std::{io::ErrorKind, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

async fn connect(app: &TestApp) -> TcpStream {
    let address = app.url.trim_start_matches("http://");
    TcpStream::connect(address).await.expect("a connection")
}

/// Reads until the server closes the connection.
async fn rest(mut socket: TcpStream) -> String {
    let mut response = Vec::new();
    let read = timeout(SOON, socket.read_to_end(&mut response)).await;
    // A reset ends it too.
    let _ = read.expect("the server closes the connection");
    String::from_utf8_lossy(&response).into_owned()
}

#[tokio::test]
async fn a_client_that_disconnects_leaves_nothing() {
    let app = without_workers().await;
    for head in [
        "POST /v1/files?filename=a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 33554432\r\n\r\n",
        "POST /v1/files HTTP/1.1\r\nHost: localhost\r\nContent-Length: 33554432\r\nContent-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n",
    ] {
        let mut socket = connect(&app).await;
        socket.write_all(head.as_bytes()).await.expect("sent");
        socket
            .write_all(&vec![7; 16 * 1024 * 1024])
            .await
            .expect("sent");
        drop(socket);
        nothing_is_left(&app).await;
    }
}

#[tokio::test]
async fn a_body_that_pauses_too_long_ends_with_408() {
    let app = TestApp::builder()
        .workers(&[])
        .set("server.idle_timeout", "1s")
        .start()
        .await;
    let mut socket = connect(&app).await;
    let head = "POST /v1/files?filename=a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 100\r\n\r\nhello";
    socket.write_all(head.as_bytes()).await.expect("sent");
    let response = rest(socket).await;
    assert!(response.starts_with("HTTP/1.1 408 "), "{response}");
    assert!(response.contains("request_timeout"), "{response}");
    nothing_is_left(&app).await;
}

#[tokio::test]
async fn headers_that_trickle_in_are_cut_off() {
    let app = TestApp::builder()
        .workers(&[])
        .set("server.header_timeout", "1s")
        .start()
        .await;
    let mut socket = connect(&app).await;
    socket
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-")
        .await
        .expect("sent");
    let response = rest(socket).await;
    assert!(!response.contains("200 OK"), "{response}");
    let silent = connect(&app).await;
    assert_eq!(rest(silent).await, "");
}

#[tokio::test]
async fn headers_without_end_are_rejected() {
    let app = without_workers().await;
    let mut socket = connect(&app).await;
    socket
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
        .await
        .expect("sent");
    let line = format!("X-Pad: {}\r\n", "x".repeat(8000));
    while socket.write_all(line.as_bytes()).await.is_ok() {}
    let response = rest(socket).await;
    assert!(!response.contains("200 OK"), "{response}");
}

#[tokio::test]
async fn a_rejected_client_gets_no_100_continue() {
    let app = TestApp::builder()
        .workers(&[])
        .set("uploads.max_file_size", "1KiB")
        .start()
        .await;
    let ask = |length: usize| {
        format!(
            "POST /v1/files?filename=a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let mut refused = connect(&app).await;
    refused.write_all(ask(5000).as_bytes()).await.expect("sent");
    let response = rest(refused).await;
    assert!(response.starts_with("HTTP/1.1 413 "), "{response}");
    let mut taken = connect(&app).await;
    taken.write_all(ask(5).as_bytes()).await.expect("sent");
    let mut interim = [0; 25];
    timeout(SOON, taken.read_exact(&mut interim))
        .await
        .expect("in time")
        .expect("a response");
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    taken.write_all(b"hello").await.expect("sent");
    let response = rest(taken).await;
    assert!(response.starts_with("HTTP/1.1 202 "), "{response}");
}

#[tokio::test]
async fn a_rejected_body_that_continues_is_answered_once() {
    let app = TestApp::builder()
        .workers(&[])
        .set("uploads.max_file_size", "1KiB")
        .start()
        .await;
    const LENGTH: usize = 3_000_000;
    let (mut from, mut to) = connect(&app).await.into_split();
    let head = format!(
        "POST /v1/files?filename=a HTTP/1.1\r\nHost: localhost\r\nContent-Length: {LENGTH}\r\n\r\n"
    );
    to.write_all(head.as_bytes()).await.expect("sent");
    // The response is sent before most of the body, which is longer than any head may be.
    let mut response = vec![0; 1024];
    let read = timeout(SOON, from.read(&mut response))
        .await
        .expect("in time");
    response.truncate(read.expect("a response"));
    assert!(response.starts_with(b"HTTP/1.1 413 "));
    let _ = to.write_all(&vec![b'x'; LENGTH]).await;
    drop(to);
    let _ = timeout(SOON, from.read_to_end(&mut response))
        .await
        .expect("in time");
    let response = String::from_utf8_lossy(&response);
    assert_eq!(response.matches("HTTP/1.1 ").count(), 1, "{response}");
}

#[tokio::test]
async fn connections_are_kept_for_further_requests() {
    let app = without_workers().await;
    let mut socket = connect(&app).await;
    for last in [false, true] {
        let connection = if last { "close" } else { "keep-alive" };
        let request =
            format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n\r\n");
        socket.write_all(request.as_bytes()).await.expect("sent");
        if !last {
            let mut response = Vec::new();
            while !response.ends_with(b"}") {
                let byte = timeout(SOON, socket.read_u8()).await.expect("in time");
                response.push(byte.expect("a response"));
            }
        }
    }
    let response = rest(socket).await;
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
}

/// Sends a request and reads its response.
async fn answered(socket: &mut TcpStream) {
    let ask = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    socket.write_all(ask.as_bytes()).await.expect("sent");
    let mut response = Vec::new();
    while !response.ends_with(b"}") {
        let byte = timeout(SOON, socket.read_u8()).await.expect("in time");
        response.push(byte.expect("a response"));
    }
}

#[tokio::test]
async fn an_idle_connection_outlives_the_header_timeout() {
    let app = TestApp::builder()
        .workers(&[])
        .set("server.header_timeout", "1s")
        .start()
        .await;
    let mut socket = connect(&app).await;
    answered(&mut socket).await;
    // Neither bytes nor the end arrive.
    let rested = timeout(Duration::from_millis(2500), socket.read_u8()).await;
    assert!(rested.is_err(), "{rested:?}");
    let ask = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    socket.write_all(ask.as_bytes()).await.expect("sent");
    let response = rest(socket).await;
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
}

#[tokio::test]
async fn a_second_request_that_trickles_in_is_cut_off_too() {
    let app = TestApp::builder()
        .workers(&[])
        .set("server.header_timeout", "1s")
        .start()
        .await;
    let mut socket = connect(&app).await;
    answered(&mut socket).await;
    let begun = "GET /healthz HTTP/1.1\r\nHost: ";
    socket.write_all(begun.as_bytes()).await.expect("sent");
    assert_eq!(rest(socket).await, "");
}

#[tokio::test]
async fn a_download_that_is_not_read_is_aborted() {
    let app = TestApp::builder()
        .set("server.idle_timeout", "1s")
        .start()
        .await;
    let file = app.upload("large.bin", vec![7; 8 * 1024 * 1024]).await;
    app.settled(&file["id"]).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let address = app
        .url
        .trim_start_matches("http://")
        .parse()
        .expect("an address");
    let mut socket = socket.connect(address).await.expect("a connection");
    let path = format!("/v1/files/{}/content", file["id"].as_str().expect("an id"));
    let ask = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    socket.write_all(ask.as_bytes()).await.expect("sent");
    // Writing to a socket that the server has closed causes a reset.
    wait_until(SOON, async || match socket.try_write(b"x") {
        Ok(_) => None,
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(_) => Some(()),
    })
    .await;
}
