//! `GET` and `HEAD /v1/files/{id}/content`, and `DELETE /v1/files/{id}`.

use super::{get, without_workers};
use crate::support::{TestApp, app::problem};
use landfall_core::digest::Sha256Digest;
use landfall_test_servers::S3Server;
use reqwest::{Method, Response};
use serde_json::Value;

async fn stored(app: &TestApp, name: &str, bytes: &'static str) -> String {
    let taken = app.upload(name, bytes).await;
    let stored = app.settled(&taken["id"]).await;
    assert_eq!(stored["status"], "stored", "{stored}");
    let id = stored["id"].as_str().expect("an id");
    format!("/v1/files/{id}/content")
}

async fn with(app: &TestApp, path: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = app.get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().await.expect("a response")
}

fn header<'r>(response: &'r Response, name: &str) -> &'r str {
    let value = response.headers().get(name);
    value.map_or("", |value| value.to_str().expect("text"))
}

#[tokio::test]
async fn the_bytes_come_back_as_an_attachment() {
    let app = TestApp::start().await;
    let path = stored(&app, "Zürich.html", "<b>hello</b>").await;
    let response = get(&app, &path).await;
    assert_eq!(response.status(), 200);
    let etag = format!("\"{}\"", Sha256Digest::compute(b"<b>hello</b>"));
    for (name, value) in [
        ("etag", etag.as_str()),
        ("content-length", "12"),
        ("accept-ranges", "bytes"),
        ("x-content-type-options", "nosniff"),
        (
            "content-disposition",
            "attachment; filename=\"Z_rich.html\"; filename*=UTF-8''Z%C3%BCrich.html",
        ),
    ] {
        assert_eq!(header(&response, name), value, "{name}");
    }
    assert!(header(&response, "content-security-policy").contains("sandbox"));
    assert!(header(&response, "last-modified").ends_with(" GMT"));
    assert_eq!(response.text().await.expect("a body"), "<b>hello</b>");
    let head = app
        .request(Method::HEAD, &path)
        .send()
        .await
        .expect("a response");
    assert_eq!(head.status(), 200);
    assert_eq!(header(&head, "content-length"), "12");
    assert_eq!(header(&head, "etag"), etag);
}

#[tokio::test]
async fn ranges_are_sent_as_requested() {
    let app = TestApp::start().await;
    let path = stored(&app, "a", "0123456789").await;
    for (range, content_range, bytes) in [
        ("bytes=0-3", "bytes 0-3/10", "0123"),
        ("bytes=7-", "bytes 7-9/10", "789"),
        ("bytes=-2", "bytes 8-9/10", "89"),
        ("bytes=5-999", "bytes 5-9/10", "56789"),
    ] {
        let response = with(&app, &path, &[("range", range)]).await;
        assert_eq!(response.status(), 206, "{range}");
        assert_eq!(header(&response, "content-range"), content_range);
        assert_eq!(response.text().await.expect("a body"), bytes);
    }
    for whole in ["bytes=0-1,4-5", "bytes=x", "lines=1-2"] {
        let response = with(&app, &path, &[("range", whole)]).await;
        assert_eq!(response.status(), 200, "{whole}");
        assert_eq!(response.text().await.expect("a body"), "0123456789");
    }
    for beyond in ["bytes=10-", "bytes=-0"] {
        let response = with(&app, &path, &[("range", beyond)]).await;
        assert_eq!(header(&response, "content-range"), "bytes */10");
        problem(response, 416, "range_not_satisfiable").await;
    }
}

#[tokio::test]
async fn preconditions_hold() {
    let app = TestApp::start().await;
    let path = stored(&app, "a", "0123456789").await;
    let first = get(&app, &path).await;
    let (etag, modified) = (header(&first, "etag"), header(&first, "last-modified"));
    let stale = "\"stale\"";
    let long_ago = "Thu, 01 Jan 1970 00:00:00 GMT";
    for (headers, status) in [
        (vec![("if-none-match", etag)], 304),
        (vec![("if-none-match", stale)], 200),
        (vec![("if-none-match", "*")], 304),
        (vec![("if-modified-since", modified)], 304),
        (vec![("if-modified-since", long_ago)], 200),
        (
            vec![("if-none-match", stale), ("if-modified-since", modified)],
            200,
        ),
        (vec![("range", "bytes=0-1"), ("if-range", etag)], 206),
        (vec![("range", "bytes=0-1"), ("if-range", modified)], 206),
        (vec![("range", "bytes=0-1"), ("if-range", stale)], 200),
        (vec![("range", "bytes=0-1"), ("if-range", long_ago)], 200),
    ] {
        let response = with(&app, &path, &headers).await;
        assert_eq!(response.status(), status, "{headers:?}");
    }
}

#[tokio::test]
async fn what_is_not_stored_is_a_conflict_and_what_is_deleted_is_gone() {
    let app = without_workers().await;
    let taken = app.upload("a", "hello").await;
    let id = taken["id"].as_str().expect("an id");
    let path = format!("/v1/files/{id}/content");
    problem(get(&app, &path).await, 409, "not_stored").await;
    let early = app.delete(&format!("/v1/files/{id}")).send().await;
    problem(early.expect("a response"), 409, "not_stored").await;

    let app = TestApp::start().await;
    let path = stored(&app, "a", "hello").await;
    let file = path.trim_end_matches("/content");
    for _ in 0..2 {
        let deleted = app.delete(file).send().await.expect("a response");
        assert_eq!(deleted.status(), 204);
    }
    problem(get(&app, &path).await, 404, "not_found").await;
    let row: Value = get(&app, file).await.json().await.expect("a File");
    assert_eq!(
        (&row["status"], &row["url"]),
        (&"deleted".into(), &Value::Null)
    );
}

#[tokio::test]
async fn downloads_from_s3_are_redirected() {
    let server = S3Server::start().await;
    let app = TestApp::builder().s3(&server).start().await;
    let path = stored(&app, "Zürich.txt", "hello").await;
    let response = get(&app, &path).await;
    assert_eq!(response.status(), 307);
    let location = header(&response, "location").to_owned();
    assert!(location.starts_with(&server.endpoint()), "{location}");
    let fetched = app.client.get(location).send().await.expect("a response");
    assert_eq!(fetched.text().await.expect("a body"), "hello");
    // As `curl -IL` continues: a signature is valid for one method.
    let response = app
        .request(Method::HEAD, &path)
        .send()
        .await
        .expect("a response");
    assert_eq!(response.status(), 307);
    let location = header(&response, "location").to_owned();
    let looked = app.client.head(location).send().await.expect("a response");
    assert_eq!(looked.status(), 200);
    assert_eq!(header(&looked, "content-length"), "5");
}

#[tokio::test]
async fn invalid_ids_are_not_found() {
    let app = without_workers().await;
    for id in [
        "x",
        "0",
        "..",
        "%00",
        "%F0%9F%9A%A2",
        "01928f4e-6f00-7a3b-8c1d-2e3f4a5b6c7d",
    ] {
        for path in [format!("/v1/files/{id}"), format!("/v1/files/{id}/content")] {
            problem(get(&app, &path).await, 404, "not_found").await;
        }
    }
}
