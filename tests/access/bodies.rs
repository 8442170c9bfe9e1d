//! Endless bodies: every route responds while they still arrive.

use super::token;
use crate::support::{TestApp, app::SOON};
use landfall::server;
use landfall_core::tokens::TokenScope;
use reqwest::Method;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const PIECE: usize = 64 * 1024;

/// Returns the status line of the response to a request whose body never ends.
pub(super) async fn endless(app: &TestApp, method: &Method, path: &str, headers: &str) -> String {
    let address = app.url.strip_prefix("http://").unwrap();
    let socket = TcpStream::connect(address).await.unwrap();
    let (mut from, mut to) = socket.into_split();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\ntransfer-encoding: chunked\r\n{headers}\r\n"
    );
    to.write_all(head.as_bytes()).await.unwrap();
    let sending = tokio::spawn(async move {
        let piece = format!("{PIECE:x}\r\n{}\r\n", "a".repeat(PIECE));
        while to.write_all(piece.as_bytes()).await.is_ok() {}
    });
    let mut answer = [0; 1024];
    let reading = tokio::time::timeout(SOON, from.read(&mut answer));
    let read = reading
        .await
        .unwrap_or_else(|_| panic!("{method} {path} never answers"));
    sending.abort();
    let answer = String::from_utf8_lossy(&answer[..read.unwrap()]).into_owned();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_of_the_dashboard_waits_for_the_end_of_a_body() {
    for mode in ["tokens", "none"] {
        let app = TestApp::builder()
            .workers(&[])
            .set("auth.mode", mode)
            .start()
            .await;
        let form = "content-type: application/x-www-form-urlencoded\r\n";
        let by_script = format!("{form}x-csrf-token: guessed\r\n");
        for (method, path) in server::pages() {
            for headers in [form, &by_script] {
                let path = path.replace(":id", "01928f4e-6f00-7a3b-8c1d-2e3f4a5b6c7d");
                let status = endless(&app, &method, &path, headers).await;
                assert!(status.starts_with("HTTP/1.1 "), "{method} {path}: {status}");
                assert!(!status.contains(" 500 "), "{method} {path}: {status}");
            }
        }
        let sign_in = endless(&app, &Method::POST, "/sign-in", form).await;
        assert!(sign_in.contains(" 413 "), "{sign_in}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_api_operation_waits_for_the_end_of_a_rejected_body() {
    let app = TestApp::builder()
        .workers(&[])
        .set("auth.mode", "tokens")
        .set("uploads.max_file_size", "1MiB")
        .start()
        .await;
    let token = token(&app, "ann", &[TokenScope::Upload]).await;
    let definition = app.read("/openapi.json").await;
    let bearer = format!("authorization: Bearer {token}\r\n");
    for (path, operations) in definition["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let path = path
                .replace("{id}", "01928f4e-6f00-7a3b-8c1d-2e3f4a5b6c7d")
                .replace("{number}", "1");
            for who in ["", &bearer] {
                for kind in ["application/json", "application/octet-stream"] {
                    let headers = format!("{who}content-type: {kind}\r\ntus-resumable: 1.0.0\r\n");
                    let status = endless(&app, &method, &path, &headers).await;
                    assert!(status.starts_with("HTTP/1.1 "), "{method} {path}: {status}");
                    assert!(!status.contains(" 500 "), "{method} {path}: {status}");
                }
            }
        }
    }
}
