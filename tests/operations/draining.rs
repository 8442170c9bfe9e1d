//! On SIGTERM readiness goes first, connections are closed by a response, and no request that was on its way is cut off.

use crate::support::{Installation, Process, app::SOON};
use landfall_test_servers::wait_until;
use rustix::process::Signal;
use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const UPLOAD: &str =
    "POST /v1/files?filename=a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello";

async fn serve(drain_delay: &str) -> (Installation, Process) {
    let mut installation = Installation::new();
    installation.set("server.drain_delay", drain_delay);
    let process = Process::listening(&["up"], &installation.environment()).await;
    (installation, process)
}

async fn connect(process: &Process) -> TcpStream {
    let address = process.url.trim_start_matches("http://");
    TcpStream::connect(address).await.expect("a connection")
}

/// Sends a request and reads its response, of which the body is JSON.
async fn exchange(socket: &mut TcpStream, request: &str) -> String {
    socket.write_all(request.as_bytes()).await.expect("sent");
    let mut response = Vec::new();
    let read = async {
        let mut buffer = [0; 4096];
        while !(response.ends_with(b"}") || response.ends_with(b"}\n")) {
            match socket.read(&mut buffer).await.expect("a response") {
                0 => break,
                read => response.extend_from_slice(&buffer[..read]),
            }
        }
    };
    timeout(SOON, read).await.expect("a response in time");
    String::from_utf8(response).expect("text")
}

async fn is_closed(mut socket: TcpStream) -> bool {
    let mut rest = Vec::new();
    match timeout(SOON, socket.read_to_end(&mut rest)).await {
        Ok(Ok(_)) => rest.is_empty(),
        Ok(Err(error)) => error.kind() == ErrorKind::ConnectionReset,
        Err(_) => false,
    }
}

#[tokio::test]
async fn a_draining_process_is_not_ready_and_still_serves() {
    let (_installation, mut process) = serve("3s").await;
    let mut idle = connect(&process).await;
    let before = exchange(&mut idle, UPLOAD).await;
    assert!(before.starts_with("HTTP/1.1 202 "), "{before}");
    assert!(
        !before.to_lowercase().contains("connection: close"),
        "{before}"
    );
    let ready = reqwest::get(format!("{}/readyz", process.url)).await;
    assert_eq!(ready.expect("a response").status(), 200);

    let begun = Instant::now();
    process.signal(Signal::TERM);
    let report = wait_until(SOON, async || {
        let response = reqwest::get(format!("{}/readyz", process.url)).await;
        let response = response.map_err(|error| error.to_string())?;
        match response.status().as_u16() {
            503 => Ok(response.json::<serde_json::Value>().await.expect("JSON")),
            status => Err(status.to_string()),
        }
    })
    .await;
    assert_eq!(report["status"], "down");
    assert_eq!(report["draining"], true);
    assert_eq!(report["checks"]["database"]["status"], "ok");

    // A connection that was idle, and a new one: both are served, and closed by the response.
    let fresh = connect(&process).await;
    for mut socket in [idle, fresh] {
        let response = exchange(&mut socket, UPLOAD).await;
        assert!(response.starts_with("HTTP/1.1 202 "), "{response}");
        assert!(response.contains("\r\nconnection: close\r\n"), "{response}");
        assert!(is_closed(socket).await, "the connection stays open");
    }
    assert!(begun.elapsed() < Duration::from_secs(3), "it was draining");
    assert!(process.ends_within(SOON).await.success());
    assert!(begun.elapsed() >= Duration::from_secs(3), "it waited");
}

#[tokio::test]
async fn a_request_on_an_idle_connection_is_served_after_the_listener_closed() {
    let (_installation, mut process) = serve("1s").await;
    let mut idle = connect(&process).await;
    exchange(&mut idle, UPLOAD).await;
    process.signal(Signal::TERM);
    let address = process.url.trim_start_matches("http://").to_owned();
    wait_until(SOON, async || match TcpStream::connect(&address).await {
        Ok(_) => Err("it listens"),
        Err(_) => Ok(()),
    })
    .await;
    let response = exchange(&mut idle, UPLOAD).await;
    assert!(response.starts_with("HTTP/1.1 202 "), "{response}");
    assert!(response.contains("\r\nconnection: close\r\n"), "{response}");
    assert!(process.ends_within(SOON).await.success());
}

#[tokio::test]
async fn a_single_process_does_not_wait_by_default() {
    let (_installation, mut process) = serve("0s").await;
    let mut idle = connect(&process).await;
    exchange(&mut idle, UPLOAD).await;
    process.signal(Signal::TERM);
    assert!(is_closed(idle).await);
    assert!(process.ends_within(SOON).await.success());
}
