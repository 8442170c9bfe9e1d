//! Numbers out of range, wrong lengths, invalid lists: each gets a clear response, and nothing is lost.

use crate::support::{
    TestApp,
    app::{json, problem},
};
use landfall_core::tokens::{self, TokenScope};
use landfall_test_servers::wait_until;
use reqwest::{Method, RequestBuilder, Response};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const SOON: Duration = Duration::from_secs(20);
const CHUNK: usize = 64 * 1024;

async fn send(request: RequestBuilder) -> Response {
    request.send().await.expect("a response")
}

fn tus(app: &TestApp, method: &str, path: &str) -> RequestBuilder {
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let request = app.request(method, path);
    request.header("Tus-Resumable", "1.0.0")
}

fn location(response: &Response) -> String {
    assert_eq!(response.status(), 201, "{response:?}");
    let location = response.headers()["location"].to_str().expect("text");
    location.to_owned()
}

async fn session(app: &TestApp, total: usize) -> String {
    let body = json!({
        "original_filename": "a", "total_size_bytes": total, "chunk_size_bytes": CHUNK,
    });
    location(&send(app.post("/v1/uploads").json(&body)).await)
}

fn part(app: &TestApp, session: &str, number: &str, size: usize) -> RequestBuilder {
    let path = format!("{session}/parts/{number}");
    app.request(Method::PUT, &path).body(vec![7; size])
}

async fn received(app: &TestApp, session: &str) -> Value {
    json(send(app.get(session)).await, 200).await["received_parts"].clone()
}

#[tokio::test]
async fn part_numbers_out_of_range_are_not_found() {
    let app = TestApp::builder().workers(&[]).start().await;
    let session = session(&app, 2 * CHUNK).await;
    for number in ["0", "3", "10001", "2147483648", "4294967295"] {
        problem(
            send(part(&app, &session, number, CHUNK)).await,
            404,
            "not_found",
        )
        .await;
    }
    for number in ["-1", "4294967296", "one", "1.5", "99999999999999999999"] {
        let response = send(part(&app, &session, number, CHUNK)).await;
        assert!(
            [400, 404].contains(&response.status().as_u16()),
            "{number}: {response:?}"
        );
    }
    assert_eq!(received(&app, &session).await, "");
    json(send(part(&app, &session, "2", CHUNK)).await, 200).await;
    assert_eq!(received(&app, &session).await, "2");
}

#[tokio::test]
async fn hundred_thousand_parts_become_ten_thousand_larger_ones() {
    let app = TestApp::builder().workers(&[]).start().await;
    let path = session(&app, 100_000 * CHUNK).await;
    let begun = json(send(app.get(&path)).await, 200).await;
    let (parts, size) = (&begun["total_parts"], &begun["chunk_size_bytes"]);
    let (parts, size) = (
        parts.as_u64().expect("a number"),
        size.as_u64().expect("a number"),
    );
    assert!(parts <= 10_000 && size > CHUNK as u64, "{begun}");
    assert_eq!(parts, (100_000 * CHUNK as u64).div_ceil(size));
    let beyond = part(&app, &path, &(parts + 1).to_string(), CHUNK);
    problem(send(beyond).await, 404, "not_found").await;
    // The client's wish; the response says how large the parts are.
    problem(
        send(part(&app, &path, "1", CHUNK)).await,
        422,
        "size_mismatch",
    )
    .await;
    assert_eq!(received(&app, &path).await, "");
}

#[tokio::test]
async fn parts_of_the_wrong_size_or_beyond_the_end_are_rejected_and_the_file_is_intact() {
    let app = TestApp::start().await;
    let session = session(&app, 2 * CHUNK + 5).await;
    for (number, size) in [
        ("1", CHUNK - 1),
        ("1", CHUNK + 1),
        ("3", 4),
        ("3", 6),
        ("3", 0),
    ] {
        let refused = send(part(&app, &session, number, size)).await;
        problem(refused, 422, "size_mismatch").await;
    }
    for (number, size) in [("3", 5), ("1", CHUNK)] {
        json(send(part(&app, &session, number, size)).await, 200).await;
    }
    let complete = format!("{session}/complete");
    let holes = problem(send(app.post(&complete)).await, 409, "parts_missing").await;
    assert!(
        holes["detail"].as_str().expect("text").contains('2'),
        "{holes}"
    );
    json(send(part(&app, &session, "2", CHUNK)).await, 200).await;
    let twice = tokio::join!(send(app.post(&complete)), send(app.post(&complete)));
    let first = json(twice.0, 202).await;
    assert_eq!(first["id"], json(twice.1, 202).await["id"]);
    let stored = app.settled(&first["id"]).await;
    assert_eq!(
        (&stored["status"], &stored["size_bytes"]),
        (&json!("stored"), &json!(2 * CHUNK + 5))
    );
    problem(
        send(part(&app, &session, "1", CHUNK)).await,
        409,
        "upload_closed",
    )
    .await;
    assert_eq!(
        json(send(app.post(&complete)).await, 202).await["id"],
        first["id"]
    );
}

#[tokio::test]
async fn invalid_sizes_in_headers_are_rejected_and_change_nothing() {
    const WRONG: [&str; 8] = [
        "-1",
        "+5",
        "1.5",
        "0x10",
        "1e3",
        "five",
        "9223372036854775808",
        "99999999999999999999",
    ];
    let app = TestApp::builder().workers(&[]).start().await;
    for wrong in WRONG {
        let post = tus(&app, "POST", "/v1/tus").header("Upload-Length", wrong);
        assert_eq!(send(post).await.status(), 400, "Upload-Length: {wrong}");
    }
    for wrong in ["0", "2", "true", "-1", "11"] {
        let post = tus(&app, "POST", "/v1/tus").header("Upload-Defer-Length", wrong);
        assert_eq!(
            send(post).await.status(),
            400,
            "Upload-Defer-Length: {wrong}"
        );
    }
    let deferred = tus(&app, "POST", "/v1/tus").header("Upload-Defer-Length", "1");
    let path = location(&send(deferred).await);
    let patch = |offset: &str| {
        tus(&app, "PATCH", &path)
            .header("Upload-Offset", offset)
            .header("Content-Type", "application/offset+octet-stream")
            .body("hello")
    };
    for wrong in WRONG {
        assert_eq!(
            send(patch(wrong)).await.status(),
            400,
            "Upload-Offset: {wrong}"
        );
        let length = patch("0").header("Upload-Length", wrong);
        assert_eq!(send(length).await.status(), 400, "Upload-Length: {wrong}");
    }
    let without =
        tus(&app, "PATCH", &path).header("Content-Type", "application/offset+octet-stream");
    assert_eq!(send(without.body("hello")).await.status(), 400);
    assert_eq!(send(patch("9223372036854775807")).await.status(), 409);
    let head = send(tus(&app, "HEAD", &path)).await;
    assert_eq!(head.headers()["upload-offset"], "0");
    assert_eq!(
        send(patch("0").header("Upload-Length", "5")).await.status(),
        204
    );
}

#[tokio::test]
async fn truncated_bodies_do_not_count_as_parts() {
    let app = TestApp::builder().workers(&[]).start().await;
    let session = session(&app, CHUNK).await;
    let address = app.url.strip_prefix("http://").expect("an address");
    for said in [CHUNK, CHUNK + 1, 10 * CHUNK] {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        let head = format!(
            "PUT {session}/parts/1 HTTP/1.1\r\nHost: {address}\r\nContent-Length: {said}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("a head");
        stream.write_all(&[7; 1000]).await.expect("bytes");
        stream.shutdown().await.expect("an end");
        let mut response = Vec::new();
        // An interrupted body may or may not get a response; it does not count in either case.
        let _ = stream.read_to_end(&mut response).await;
        assert!(
            !response.starts_with(b"HTTP/1.1 2"),
            "{}",
            String::from_utf8_lossy(&response)
        );
        assert_eq!(received(&app, &session).await, "");
    }
    // The part is free again at once, or when its claim expires.
    wait_until(SOON, async || {
        let response = send(part(&app, &session, "1", CHUNK)).await;
        (response.status() == 200).then_some(())
    })
    .await;
    assert_eq!(received(&app, &session).await, "1");
}

#[tokio::test]
async fn partials_that_are_foreign_missing_aborted_or_used_are_rejected() {
    let app = TestApp::builder().set("auth.mode", "tokens").start().await;
    let landfall = &app.parts.app;
    let token = async |owner: &str| {
        let scopes = [TokenScope::Upload, TokenScope::Read];
        let made = tokens::create(&landfall.db, &landfall.clock, owner, &scopes, None).await;
        made.expect("a token").1.expose_secret().to_owned()
    };
    let (own, foreign) = (token("own").await, token("foreign").await);
    let partial = async |token: &str| {
        let post = tus(&app, "POST", "/v1/tus").bearer_auth(token);
        let post = post
            .header("Upload-Length", 5)
            .header("Upload-Concat", "partial");
        let path = location(&send(post).await);
        let patch = tus(&app, "PATCH", &path).bearer_auth(token);
        let patch = patch.header("Upload-Offset", 0);
        let patch = patch.header("Content-Type", "application/offset+octet-stream");
        assert_eq!(send(patch.body("hello")).await.status(), 204);
        path
    };
    let join = async |list: &str| {
        let post = tus(&app, "POST", "/v1/tus").bearer_auth(&own);
        send(post.header("Upload-Concat", format!("final;{list}"))).await
    };
    let (one, two) = (partial(&own).await, partial(&own).await);
    let theirs = partial(&foreign).await;
    let gone = partial(&own).await;
    let delete = tus(&app, "DELETE", &gone).bearer_auth(&own);
    assert_eq!(send(delete).await.status(), 204);
    let missing = "/v1/tus/0192f0c1-0000-7000-8000-000000000000";
    for bad in [
        theirs.as_str(),
        &gone,
        missing,
        &one,
        "",
        "/v1/tus/",
        "nonsense",
    ] {
        let list = format!("{one} {bad}");
        let response = match bad {
            "" => join("").await,
            _ => join(&list).await,
        };
        assert_eq!(response.status(), 400, "{list}");
    }
    let joined = location(&join(&format!("{one} {two}")).await);
    let three = partial(&own).await;
    assert_eq!(
        join(&format!("{one} {three}")).await.status(),
        400,
        "part of another one"
    );
    assert_eq!(location(&join(&format!("{one} {two}")).await), joined);
    // The foreign one is as it was.
    let head = send(tus(&app, "HEAD", &theirs).bearer_auth(&foreign)).await;
    assert_eq!(head.headers()["upload-offset"], "5");
}
