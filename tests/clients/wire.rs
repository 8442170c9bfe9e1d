//! Paths, headers and encodings.

use super::header;
use crate::support::{
    TestApp,
    app::{SOON, json, problem},
};
use landfall_test_servers::wait_until;
use reqwest::{Method, multipart};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

async fn app() -> TestApp {
    TestApp::builder().workers(&[]).start().await
}

/// Sends raw bytes, and returns the response until the server closes.
async fn exchange(app: &TestApp, request: &[u8]) -> String {
    let address = app.url.trim_start_matches("http://");
    let mut socket = TcpStream::connect(address).await.expect("a connection");
    socket.write_all(request).await.expect("sent");
    let mut response = Vec::new();
    let read = timeout(SOON, socket.read_to_end(&mut response)).await;
    read.expect("in time").expect("a response");
    String::from_utf8_lossy(&response).into_owned()
}

#[tokio::test]
async fn every_path_works_with_a_trailing_slash() {
    let app = app().await;
    let file = app.upload("a.txt", "hello").await;
    let id = file["id"].as_str().expect("an id");
    for path in [
        "/v1/files/",
        "/v1/webhooks/",
        "/v1/events/?limit=1",
        "/healthz/",
        "/files/",
    ] {
        let response = app.get(path).send().await.expect("a response");
        assert_eq!(response.status(), 200, "{path}");
    }
    let one = json(
        app.get(&format!("/v1/files/{id}/")).send().await.unwrap(),
        200,
    )
    .await;
    assert_eq!(one["id"], id);
    let begun = app
        .post("/v1/tus/")
        .header("Tus-Resumable", "1.0.0")
        .header("Upload-Length", 5)
        .send()
        .await
        .expect("a response");
    assert_eq!(begun.status(), 201);
    let path = format!("{}/", header(&begun, "location").expect("a Location"));
    let look = app
        .request(Method::HEAD, &path)
        .header("Tus-Resumable", "1.0.0");
    assert_eq!(look.send().await.expect("a response").status(), 200);
    let asked = app
        .request(Method::OPTIONS, "/v1/tus/")
        .header("Origin", "https://shop.example")
        .header("Access-Control-Request-Method", "POST")
        .header(
            "Access-Control-Request-Headers",
            "tus-resumable,upload-length",
        );
    let allowed = asked.send().await.expect("a response");
    assert_eq!(allowed.status(), 204);
    assert_eq!(header(&allowed, "access-control-allow-origin"), Some("*"));
}

#[tokio::test]
async fn a_retry_with_a_slash_is_the_same_request() {
    let app = app().await;
    let send = async |path: &str| {
        let request = app
            .post(path)
            .header("Idempotency-Key", "one")
            .body("hello");
        json(request.send().await.expect("a response"), 202).await
    };
    let first = send("/v1/files?filename=a").await;
    assert_eq!(send("/v1/files/?filename=a").await["id"], first["id"]);
}

#[tokio::test]
async fn every_path_below_the_tus_endpoint_speaks_tus() {
    let app = app().await;
    for path in ["/v1/tus/a", "/v1/tus/a/b", "/v1/tus//"] {
        let response = app.get(path).header("Tus-Resumable", "1.0.0");
        let response = response.send().await.expect("a response");
        assert_eq!(response.status(), 404, "{path}");
        assert_eq!(header(&response, "tus-resumable"), Some("1.0.0"), "{path}");
    }
    let elsewhere = app.get("/v1/tusk").send().await.expect("a response");
    assert_eq!(header(&elsewhere, "tus-resumable"), None);
}

#[tokio::test]
async fn offset_requests_are_never_rate_limited() {
    let app = TestApp::builder()
        .workers(&[])
        .set("limits.address.requests_per_second", "1")
        .set("limits.address.burst", "2")
        .start()
        .await;
    let begun = app
        .post("/v1/tus")
        .header("Tus-Resumable", "1.0.0")
        .header("Upload-Length", 5)
        .send()
        .await
        .expect("a response");
    let path = header(&begun, "location").expect("a Location").to_owned();
    let refused = wait_until(SOON, async || {
        let response = app.get("/v1/files").send().await.expect("a response");
        (response.status() == 429).then_some(response)
    });
    problem(refused.await, 429, "rate_limited").await;
    for _ in 0..5 {
        let look = app
            .request(Method::HEAD, &path)
            .header("Tus-Resumable", "1.0.0");
        assert_eq!(look.send().await.expect("a response").status(), 200);
    }
    let instead = app
        .post(&path)
        .header("Tus-Resumable", "1.0.0")
        .header("X-HTTP-Method-Override", "HEAD");
    assert_eq!(instead.send().await.expect("a response").status(), 200);
}

#[tokio::test]
async fn encoded_bodies_are_rejected_by_every_protocol() {
    let app = app().await;
    let session = serde_json::json!({"original_filename": "a", "total_size_bytes": 5});
    let session = json(
        app.post("/v1/uploads").json(&session).send().await.unwrap(),
        201,
    )
    .await;
    let part = format!(
        "/v1/uploads/{}/parts/1",
        session["id"].as_str().expect("an id")
    );
    let form = multipart::Form::new().part("file", multipart::Part::text("hello").file_name("a"));
    let tus = |method: Method, path: &str| {
        let request = app.request(method, path).header("Tus-Resumable", "1.0.0");
        let request = request.header("Content-Type", "application/offset+octet-stream");
        request.header("Upload-Length", 5).body("hello")
    };
    let draft = app
        .post("/v1/tus")
        .header("Upload-Complete", "?1")
        .body("hello");
    for request in [
        app.post("/v1/files?filename=a").body("hello"),
        app.post("/v1/files").multipart(form),
        app.request(Method::PUT, &part).body("hello"),
        tus(Method::POST, "/v1/tus"),
        tus(
            Method::PATCH,
            "/v1/tus/0192f0c1-0000-7000-8000-000000000000",
        ),
        draft,
        app.post("/v1/uploads").json(&session),
    ] {
        let response = request
            .header("Content-Encoding", "gzip")
            .send()
            .await
            .expect("a response");
        assert_eq!(header(&response, "accept-encoding"), Some("identity"));
        problem(response, 415, "unsupported_media_type").await;
    }
    let plain = app
        .post("/v1/files?filename=a")
        .header("Content-Encoding", "Identity");
    json(plain.body("hello").send().await.expect("a response"), 202).await;
    for name in ["content-encoding", "content-transfer-encoding"] {
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert(name, "base64".parse().expect("a value"));
        let part = multipart::Part::text("aGVsbG8=")
            .file_name("a")
            .headers(headers);
        let form = multipart::Form::new().part("file", part);
        let response = app.post("/v1/files").multipart(form).send().await;
        problem(response.expect("a response"), 415, "unsupported_media_type").await;
    }
}

#[tokio::test]
async fn unsupported_transfer_codings_are_not_implemented() {
    let app = app().await;
    for (coding, status) in [("gzip, chunked", 501), ("chunked", 202)] {
        let request = format!(
            "POST /v1/files?filename=a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: {coding}\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        );
        let response = exchange(&app, request.as_bytes()).await;
        assert!(
            response.starts_with(&format!("HTTP/1.1 {status} ")),
            "{response}"
        );
        assert_eq!(
            response.contains("\"not_implemented\""),
            status == 501,
            "{response}"
        );
    }
}

#[tokio::test]
async fn pages_may_send_what_widgets_and_monitoring_add() {
    let app = TestApp::builder()
        .workers(&[])
        .set("server.cors_headers", "X-Tenant, x-shop")
        .start()
        .await;
    let asked = app
        .request(Method::OPTIONS, "/v1/tus")
        .header("Origin", "https://shop.example")
        .header("Access-Control-Request-Method", "POST");
    let response = asked.send().await.expect("a response");
    let allowed = header(&response, "access-control-allow-headers").expect("headers");
    let allowed: Vec<&str> = allowed.split(", ").collect();
    for name in [
        "cache-control",
        "x-requested-with",
        "sentry-trace",
        "baggage",
        "traceparent",
        "tracestate",
        "x-tenant",
        "x-shop",
    ] {
        assert!(allowed.contains(&name), "{name}: {allowed:?}");
    }
}

#[tokio::test]
async fn an_idle_connection_is_kept_for_keep_alive() {
    let app = TestApp::builder()
        .workers(&[])
        .set("server.keep_alive", "1s")
        .start()
        .await;
    let response = exchange(&app, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
}
