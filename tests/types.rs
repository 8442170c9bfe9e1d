//! What kinds of content are taken in: by what is said of a file, and by what its bytes show.

use crate::support::{
    TestApp,
    app::{SOON, json, problem},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{Method, Response};
use serde_json::Value;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0";
const WINDOWS: &[u8] = b"MZ\x90\0\x03\0\0\0\x04\0\0\0\xff\xff\0\0 an executable";

async fn raw(app: &TestApp, name: &str, content_type: &str, bytes: &'static [u8]) -> Response {
    let request = app.post("/v1/files").query(&[("filename", name)]);
    let request = request.header("content-type", content_type).body(bytes);
    request.send().await.expect("an answer")
}

async fn session(app: &TestApp, name: &str, content_type: &str, size: usize) -> Response {
    let body = serde_json::json!({
        "original_filename": name, "content_type": content_type, "total_size_bytes": size,
    });
    let request = app.post("/v1/uploads").json(&body);
    request.send().await.expect("an answer")
}

async fn tus(app: &TestApp, name: &str, content_type: &str, bytes: &'static [u8]) -> Response {
    let (name, kind) = (STANDARD.encode(name), STANDARD.encode(content_type));
    let request = app
        .post("/v1/tus")
        .header("Tus-Resumable", "1.0.0")
        .header("Upload-Length", bytes.len())
        .header(
            "Upload-Metadata",
            format!("filename {name},filetype {kind}"),
        )
        .header("Content-Type", "application/offset+octet-stream")
        .body(bytes);
    request.send().await.expect("an answer")
}

/// The same file by each of the three ways, once it is final.
async fn by_every_way(
    app: &TestApp,
    name: &str,
    content_type: &str,
    bytes: &'static [u8],
) -> [Value; 3] {
    let first = json(raw(app, name, content_type, bytes).await, 202).await;
    let begun = json(session(app, name, content_type, bytes.len()).await, 201).await;
    let upload = format!("/v1/uploads/{}", begun["id"].as_str().expect("an id"));
    let part = app.request(Method::PUT, &format!("{upload}/parts/1"));
    json(part.body(bytes).send().await.expect("an answer"), 200).await;
    let complete = app.post(&format!("{upload}/complete")).send().await;
    let second = json(complete.expect("an answer"), 202).await;
    let answer = tus(app, name, content_type, bytes).await;
    assert_eq!(answer.status(), 201, "{answer:?}");
    let location = answer.headers()["location"].to_str().expect("text");
    let third = Value::from(location.rsplit('/').next().expect("an id"));
    [
        app.settled(&first["id"]).await,
        app.settled(&second["id"]).await,
        app.settled(&third).await,
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn executable_posing_as_an_image_fails_and_is_not_announced() {
    for (key, value) in [
        ("uploads.allowed_types", "image/*"),
        ("uploads.denied_types", "application/x-msdownload"),
    ] {
        let app = TestApp::builder().set(key, value).start().await;
        app.webhook("/hook", &[]).await;
        for file in by_every_way(&app, "photo.png", "image/png", WINDOWS).await {
            assert_eq!(file["status"], "failed", "{file}");
            assert_eq!(file["error"]["code"], "type_not_allowed", "{file}");
            assert_eq!(file["url"], Value::Null);
        }
        for file in by_every_way(&app, "photo.png", "image/png", PNG).await {
            assert_eq!(file["status"], "stored", "{file}");
        }
        let told = app.receiver.wait_for(3, SOON).await;
        assert_eq!(told.len(), 3, "only the real images are announced");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_posing_as_an_image_fails_where_only_images_are_taken_in() {
    let app = TestApp::builder()
        .set("uploads.allowed_types", "image/*")
        .start()
        .await;
    let file = json(
        raw(&app, "a.png", "image/png", b"no image at all").await,
        202,
    )
    .await;
    let file = app.settled(&file["id"]).await;
    assert_eq!(file["error"]["code"], "type_not_allowed", "{file}");
    let drawing = raw(&app, "a.svg", "image/svg+xml", b"<svg xmlns='x'/>").await;
    let drawing = json(drawing, 202).await;
    assert_eq!(app.settled(&drawing["id"]).await["status"], "stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn type_that_was_not_declared_is_taken_from_the_bytes() {
    let app = TestApp::start().await;
    app.webhook("/hook", &["file.stored"]).await;
    for file in by_every_way(&app, "photo", "application/octet-stream", PNG).await {
        assert_eq!(file["content_type"], "image/png", "{file}");
    }
    for request in app.receiver.wait_for(3, SOON).await {
        let event: Value = serde_json::from_slice(&request.body).expect("an event");
        assert_eq!(event["data"]["content_type"], "image/png");
    }
    let said = json(raw(&app, "a", "image/gif", PNG).await, 202).await;
    let said = app.settled(&said["id"]).await;
    assert_eq!(
        said["content_type"], "image/gif",
        "what was declared is kept"
    );
    let unknown = json(
        raw(&app, "a", "application/octet-stream", b"words").await,
        202,
    )
    .await;
    let unknown = app.settled(&unknown["id"]).await;
    assert_eq!(unknown["content_type"], "application/octet-stream");
}

#[tokio::test]
async fn names_and_types_on_the_lists_are_refused_before_the_first_byte() {
    let app = TestApp::builder()
        .workers(&[])
        .set("uploads.denied_types", "text/html, video/*")
        .set("uploads.denied_extensions", ".exe,tar.gz")
        .set("uploads.allowed_extensions", "png,gz,exe")
        .start()
        .await;
    for (name, content_type, field) in [
        ("a.exe", "image/png", "filename"),
        ("a.EXE.", "image/png", "filename"),
        ("a.tar.gz", "application/gzip", "filename"),
        ("a.jpg", "image/jpeg", "filename"),
        ("png", "image/png", "filename"),
        ("a.png", "text/html; charset=utf-8", "content_type"),
        ("a.png", "VIDEO/mp4", "content_type"),
    ] {
        let refused = [
            raw(&app, name, content_type, b"x").await,
            session(&app, name, content_type, 1).await,
            tus(&app, name, content_type, b"x").await,
        ];
        for answer in refused {
            let problem = problem(answer, 415, "type_not_allowed").await;
            assert_eq!(problem["errors"][0]["field"], field, "{name}: {problem}");
        }
    }
    json(raw(&app, "a.gz", "application/gzip", b"x").await, 202).await;
    json(session(&app, "a.png", "image/png", 1).await, 201).await;
}
