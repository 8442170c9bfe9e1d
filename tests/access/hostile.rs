//! Malicious requests: each is rejected, and the next one is served.

use super::token;
use crate::support::{TestApp, app::problem, process::command};
use landfall_core::tokens::TokenScope;
use reqwest::multipart::Form;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::process::Stdio;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

async fn app() -> TestApp {
    TestApp::builder().workers(&[]).start().await
}

async fn still_serves(app: &TestApp) {
    app.upload("after.txt", "still here").await;
}

/// Returns the response to these bytes, until the server closes or has sent the status.
async fn raw(app: &TestApp, request: &[u8]) -> String {
    let address = app.url.strip_prefix("http://").unwrap();
    let mut socket = TcpStream::connect(address).await.unwrap();
    // It may stop reading in the middle, and reset what it has not read.
    let _ = socket.write_all(request).await;
    let mut response = [0; 1024];
    let read = socket.read(&mut response).await.unwrap_or(0);
    String::from_utf8_lossy(&response[..read]).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_without_end_are_rejected() {
    let app = app().await;
    let long = format!(
        "GET /v1/files HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n",
        "a".repeat(2_000_000)
    );
    let many: String = (0..500).map(|n| format!("x-{n}: a\r\n")).collect();
    let many = format!("GET /v1/files HTTP/1.1\r\nhost: localhost\r\n{many}\r\n");
    let target = format!(
        "GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "a".repeat(2_000_000)
    );
    for request in [&long, &many, &target] {
        let response = raw(&app, request.as_bytes()).await;
        // Or the connection is reset, and the response is lost with the unread rest of the request.
        let refused = response.is_empty()
            || response.starts_with("HTTP/1.1 431 ")
            || response.starts_with("HTTP/1.1 414 ");
        assert!(refused, "{response}");
        still_serves(&app).await;
    }
}

/// Returns the whole response, and its head in lower case.
async fn answered(app: &TestApp, request: &[u8]) -> (String, String) {
    let address = app.url.strip_prefix("http://").unwrap();
    let socket = TcpStream::connect(address).await.unwrap();
    let (mut from, mut to) = socket.into_split();
    let request = request.to_vec();
    let sending = tokio::spawn(async move {
        // It is read to its end, or to where the server has had enough.
        let _ = to.write_all(&request).await;
        to
    });
    let mut response = Vec::new();
    from.read_to_end(&mut response).await.unwrap();
    drop(sending.await.unwrap());
    let response = String::from_utf8(response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").expect("a head");
    (head.to_lowercase(), body.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_and_too_long_headers_get_problem_documents() {
    let app = app().await;
    let many = |count: usize| {
        (0..count)
            .map(|n| format!("x-{n}: a\r\n"))
            .collect::<String>()
    };
    let head = "GET /v1/files HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
    let long = |size: usize| format!("{head}x: {}\r\n\r\n", "a".repeat(size));
    let target = format!(
        "GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "a".repeat(2_000_000)
    );
    let fewer = format!("{head}{}\r\n", many(95));
    let refused = [
        format!("{head}{}\r\n", many(150)),
        long(300_000),
        long(2_000_000),
        target,
    ];
    for request in refused {
        let (head, body) = answered(&app, request.as_bytes()).await;
        assert!(head.starts_with("http/1.1 431 "), "{head}");
        assert!(
            head.contains("\r\ncontent-type: application/problem+json"),
            "{head}"
        );
        assert!(head.contains("\r\nx-request-id: "), "{head}");
        let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(problem["code"], "headers_too_large", "{problem}");
        assert_eq!(problem["status"], 431);
        still_serves(&app).await;
    }
    let tus = "HEAD /v1/tus/a HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ntus-resumable: 1.0.0\r\n";
    let (head, _) = answered(&app, format!("{tus}{}\r\n", many(150)).as_bytes()).await;
    assert!(
        head.starts_with("http/1.1 431 ") && head.contains("\r\ntus-resumable: 1.0.0"),
        "{head}"
    );
    // Within the bounds, as joining many uploads needs it.
    for taken in [fewer, long(250_000)] {
        let (head, _) = answered(&app, taken.as_bytes()).await;
        assert!(head.starts_with("http/1.1 200 "), "{head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_with_line_breaks_are_rejected() {
    let app = app().await;
    for name in ["x\rset-cookie: a=b", "x\nset-cookie: a=b", "x\0"] {
        let request =
            format!("GET /v1/files HTTP/1.1\r\nhost: localhost\r\nx-request-id: {name}\r\n\r\n");
        let response = raw(&app, request.as_bytes()).await;
        assert!(
            !response.to_lowercase().contains("set-cookie"),
            "{response}"
        );
    }
    still_serves(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_fields_are_rejected() {
    let app = app().await;
    let mut form = Form::new();
    for number in 0..5_000 {
        form = form.text(format!("field{number}"), "a");
    }
    let response = app.post("/v1/files").multipart(form).send().await.unwrap();
    assert_eq!(response.status(), 400);
    still_serves(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deeply_nested_json_is_rejected() {
    let app = app().await;
    for depth in [200, 100_000] {
        let nested = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        let metadata = format!("{{\"a\":{nested}}}");
        let body = format!(
            "{{\"original_filename\":\"a\",\"total_size_bytes\":5,\"metadata\":{metadata}}}"
        );
        let request = app
            .post("/v1/uploads")
            .header("content-type", "application/json");
        let response = request.body(body).send().await.unwrap();
        let status = response.status().as_u16();
        assert!([400, 413].contains(&status), "{status} at {depth}");
        let form = Form::new().text("metadata", metadata);
        let response = app.post("/v1/files").multipart(form).send().await.unwrap();
        assert_eq!(response.status(), 400, "{depth}");
        still_serves(&app).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn path_traversal_finds_nothing() {
    let app = app().await;
    for path in [
        "/../etc/passwd",
        "/v1/files/../../etc/passwd",
        "/v1/files/%2e%2e%2f%2e%2e%2fetc%2fpasswd/content",
        "/v1/tus/..%2f..%2fetc%2fpasswd",
    ] {
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\ntus-resumable: 1.0.0\r\n\r\n");
        let response = raw(&app, request.as_bytes()).await;
        assert!(response.starts_with("HTTP/1.1 404 "), "{path}: {response}");
    }
    let found = app.get("/v1/files/nonsense").send().await.unwrap();
    problem(found, 404, "not_found").await;
}

/// Text that an attacker would like to see in the log.
const FORGED: &str = "forged-entry";

/// Everything of a request that could end up in a log, with line breaks in it where HTTP lets one put them.
async fn forge(address: &str, secret: &str) {
    let line = format!("%0a%0d%0aERROR%20{FORGED}%1b%5b2J");
    let bearer = format!("authorization: Bearer {secret}\r\n");
    for (target, headers, body) in [
        (format!("GET /v1/files/{line}"), String::new(), ""),
        (format!("GET /{line}?q={line}"), String::new(), ""),
        (format!("GET /sign-in?next={line}"), String::new(), ""),
        (format!("GET /v1/files?q={line}"), bearer.clone(), ""),
        (
            format!("POST /v1/files?filename={line}"),
            bearer.clone(),
            "hello",
        ),
        (
            "POST /v1/files?filename=a".to_owned(),
            format!("{bearer}content-type: text/{FORGED}\r\nx-request-id: a\tERROR {FORGED}\r\n"),
            "hello",
        ),
        (
            "GET /v1/files".to_owned(),
            format!("traceparent: 00-{FORGED}\r\nx-request-id: \u{85}ERROR {FORGED}\r\n"),
            "",
        ),
        (
            "POST /sign-in".to_owned(),
            "content-type: application/x-www-form-urlencoded\r\n".to_owned(),
            "token=lf_%0aERROR%20forged-entry",
        ),
        (
            "POST /v1/webhooks".to_owned(),
            format!("{bearer}content-type: application/json\r\n"),
            r#"{"url":"http://127.0.0.1:9/\nERROR forged-entry"}"#,
        ),
    ] {
        let length = body.len();
        let request = format!(
            "{target} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
        );
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut response = Vec::new();
        let _ = socket.read_to_end(&mut response).await;
        let status = String::from_utf8_lossy(&response[..response.len().min(12)]).into_owned();
        assert!(!status.starts_with("HTTP/1.1 5"), "{target}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_can_forge_a_log_line() {
    let app = TestApp::builder()
        .workers(&[])
        .set("auth.mode", "tokens")
        .set("log.level", "debug")
        .start()
        .await;
    let all = [TokenScope::Upload, TokenScope::Read, TokenScope::Admin];
    let secret = token(&app, "ops", &all).await;
    for format in ["json", "human"] {
        let mut environment = app.installation.environment();
        environment.push(("LANDFALL__LOG__FORMAT".to_owned(), format.to_owned()));
        let mut serve = command(&["serve"], &environment);
        serve
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut serve = serve.spawn().unwrap();
        let mut said = BufReader::new(serve.stdout.take().unwrap()).lines();
        let listening = said.next_line().await.unwrap().unwrap();
        let address = listening.strip_prefix("listening on http://").unwrap();
        let mut log = serve.stderr.take().unwrap();
        let log = tokio::spawn(async move {
            let mut text = String::new();
            log.read_to_string(&mut text).await.unwrap();
            text
        });
        forge(address, &secret).await;
        let pid = Pid::from_raw(serve.id().unwrap().cast_signed()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        assert!(serve.wait().await.unwrap().success());
        let log = log.await.unwrap();
        assert!(
            log.contains("answered"),
            "every request is in this log: {log}"
        );
        assert!(!log.contains(&secret) && !log.contains('\u{1b}'), "{log}");
        for line in log.lines() {
            match format {
                "json" => {
                    let entry: Value = serde_json::from_str(line).unwrap();
                    assert_ne!(entry["level"], "ERROR", "{line}");
                }
                _ => assert!(
                    line.starts_with("20"),
                    "a line begins with its time: {line}"
                ),
            }
        }
    }
}
