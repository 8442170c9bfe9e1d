//! Which media types are accepted: by declaration, and by content.

use crate::support::{
    TestApp,
    app::{SOON, json, problem},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{
    Method, RequestBuilder, Response,
    multipart::{Form, Part},
};
use serde_json::Value;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0";
const WINDOWS: &[u8] = b"MZ\x90\0\x03\0\0\0\x04\0\0\0\xff\xff\0\0 an executable";

async fn raw(app: &TestApp, name: &str, content_type: &str, bytes: &'static [u8]) -> Response {
    let request = app.post("/v1/files").query(&[("filename", name)]);
    let request = request.header("content-type", content_type).body(bytes);
    request.send().await.expect("a response")
}

async fn session(app: &TestApp, name: &str, content_type: &str, size: usize) -> Response {
    let body = serde_json::json!({
        "original_filename": name, "content_type": content_type, "total_size_bytes": size,
    });
    let request = app.post("/v1/uploads").json(&body);
    request.send().await.expect("a response")
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
    request.send().await.expect("a response")
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
    json(part.body(bytes).send().await.expect("a response"), 200).await;
    let complete = app.post(&format!("{upload}/complete")).send().await;
    let second = json(complete.expect("a response"), 202).await;
    let response = tus(app, name, content_type, bytes).await;
    assert_eq!(response.status(), 201, "{response:?}");
    let location = response.headers()["location"].to_str().expect("text");
    let third = Value::from(location.rsplit('/').next().expect("an id"));
    [
        app.settled(&first["id"]).await,
        app.settled(&second["id"]).await,
        app.settled(&third).await,
    ]
}

/// Uploads the same file by every protocol, and returns the response to the request with its first bytes.
async fn first_bytes(
    app: &TestApp,
    name: &str,
    content_type: &str,
    bytes: &'static [u8],
) -> Vec<(&'static str, Response)> {
    let sent = async |request: RequestBuilder| request.send().await.expect("a response");
    let part = Part::bytes(bytes).file_name(name.to_owned());
    let part = part.mime_str(content_type).expect("a type");
    let form = app
        .post("/v1/files")
        .multipart(Form::new().part("file", part));
    let begun = json(session(app, name, content_type, bytes.len()).await, 201).await;
    let part = format!(
        "/v1/uploads/{}/parts/1",
        begun["id"].as_str().expect("an id")
    );
    let part = app.request(Method::PUT, &part).body(bytes);
    let metadata = format!(
        "filename {},filetype {}",
        STANDARD.encode(name),
        STANDARD.encode(content_type)
    );
    let tus = |method: Method, path: &str| {
        let request = app.request(method, path).header("Tus-Resumable", "1.0.0");
        request
            .header("Upload-Metadata", &metadata)
            .header("Content-Type", "application/offset+octet-stream")
    };
    let open = sent(tus(Method::POST, "/v1/tus").header("Upload-Length", bytes.len())).await;
    let open = open.headers()["location"]
        .to_str()
        .expect("text")
        .to_owned();
    let deferred = sent(tus(Method::POST, "/v1/tus").header("Upload-Defer-Length", 1)).await;
    let deferred = deferred.headers()["location"]
        .to_str()
        .expect("text")
        .to_owned();
    let draft = app
        .post("/v1/tus")
        .header("Upload-Complete", "?1")
        .header("Upload-Metadata", &metadata)
        .body(bytes);
    let at = |path: &str| tus(Method::PATCH, path).header("Upload-Offset", 0);
    vec![
        ("form", sent(form).await),
        ("raw", raw(app, name, content_type, bytes).await),
        ("part", sent(part).await),
        (
            "tus, with its creation",
            self::tus(app, name, content_type, bytes).await,
        ),
        ("tus", sent(at(&open).body(bytes)).await),
        (
            "tus, its length deferred",
            sent(
                at(&deferred)
                    .header("Upload-Length", bytes.len())
                    .body(bytes),
            )
            .await,
        ),
        ("draft", sent(draft).await),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fake_image_is_rejected_before_it_is_acknowledged() {
    for (key, value) in [
        ("uploads.allowed_types", "image/*"),
        ("uploads.denied_types", "application/x-msdownload"),
    ] {
        let app = TestApp::builder().set(key, value).start().await;
        for (way, response) in first_bytes(&app, "photo.png", "image/png", WINDOWS).await {
            let refused = problem(response, 415, "type_not_allowed").await;
            assert_eq!(
                refused["errors"][0]["field"], "content_type",
                "{way}: {refused}"
            );
        }
        for (way, response) in first_bytes(&app, "photo.png", "image/png", PNG).await {
            assert!(response.status().is_success(), "{way}: {response:?}");
        }
        let files = app.read("/v1/files?status=failed").await;
        let failed = files["items"].as_array().expect("files");
        assert!(
            failed
                .iter()
                .all(|file| file["error"]["code"] == "upload_aborted"),
            "nothing that was acknowledged fails: {files}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executable_in_small_chunks_is_recognized() {
    let app = TestApp::builder()
        .set("uploads.denied_types", "application/x-msdownload")
        .start()
        .await;
    let tus = |method: Method, path: &str| {
        let request = app.request(method, path).header("Tus-Resumable", "1.0.0");
        request.header("Content-Type", "application/offset+octet-stream")
    };
    let begun = tus(Method::POST, "/v1/tus").header("Upload-Length", WINDOWS.len());
    let begun = begun.send().await.expect("a response");
    let path = begun.headers()["location"].to_str().expect("text");
    let at = |offset: usize, bytes: &'static [u8]| {
        tus(Method::PATCH, path)
            .header("Upload-Offset", offset)
            .body(bytes)
    };
    let first = at(0, &WINDOWS[..2]).send().await.expect("a response");
    assert_eq!(first.status(), 204);
    let rest = at(2, &WINDOWS[2..]).send().await.expect("a response");
    problem(rest, 415, "type_not_allowed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_declared_as_an_image_is_rejected_if_only_images_are_allowed() {
    let app = TestApp::builder()
        .set("uploads.allowed_types", "image/*")
        .start()
        .await;
    for (way, response) in first_bytes(&app, "a.png", "image/png", b"no image at all").await {
        let refused = problem(response, 415, "type_not_allowed").await;
        assert!(refused["detail"].is_string(), "{way}");
    }
    let svg = b"<!-- drawn --><svg xmlns='x'/>";
    for (way, response) in first_bytes(&app, "a.svg", "image/svg+xml", svg).await {
        assert!(response.status().is_success(), "{way}: {response:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn undeclared_types_are_detected_from_bytes_then_names() {
    let app = TestApp::builder()
        .set("uploads.allowed_types", "image/*, text/csv")
        .start()
        .await;
    let unknown = "application/octet-stream";
    for (name, bytes) in [("photo", PNG), ("bmi.csv", &b"BMI,age\n22,40\n"[..])] {
        for (way, response) in first_bytes(&app, name, unknown, bytes).await {
            assert!(response.status().is_success(), "{way}: {response:?}");
        }
    }
    for (name, bytes) in [
        ("a.png", WINDOWS),
        ("a.txt", &b"words"[..]),
        ("a", b"words"),
    ] {
        for (way, response) in first_bytes(&app, name, unknown, bytes).await {
            assert_eq!(response.status(), 415, "{name}, {way}: {response:?}");
        }
    }
    let csv = json(
        raw(&app, "bmi.csv", unknown, b"BMI,age\n22,40\n").await,
        202,
    )
    .await;
    assert_eq!(csv["content_type"], "text/csv");
    assert_eq!(app.settled(&csv["id"]).await["content_type"], "text/csv");
}

#[tokio::test(flavor = "multi_thread")]
async fn concatenated_uploads_are_checked_when_they_are_stored() {
    let app = TestApp::builder()
        .set("uploads.allowed_types", "image/*")
        .start()
        .await;
    let tus = || app.post("/v1/tus").header("Tus-Resumable", "1.0.0");
    let partial = tus()
        .header("Upload-Concat", "partial")
        .header("Upload-Length", WINDOWS.len())
        .header("Content-Type", "application/offset+octet-stream")
        .body(WINDOWS);
    let partial = partial.send().await.expect("a response");
    assert_eq!(partial.status(), 201);
    let partial = partial.headers()["location"].to_str().expect("text");
    let kind = format!("filetype {}", STANDARD.encode("image/png"));
    let joined = tus()
        .header("Upload-Concat", format!("final;{partial}"))
        .header("Upload-Metadata", kind);
    let joined = joined.send().await.expect("a response");
    assert_eq!(joined.status(), 201);
    let id = joined.headers()["location"]
        .to_str()
        .expect("text")
        .rsplit('/')
        .next();
    let file = app.settled(&Value::from(id.expect("an id"))).await;
    assert_eq!(file["error"]["code"], "type_not_allowed", "{file}");
}

#[tokio::test(flavor = "multi_thread")]
async fn undeclared_type_is_taken_from_the_bytes() {
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
async fn listed_names_and_types_are_rejected_before_the_first_byte() {
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
        for response in refused {
            let problem = problem(response, 415, "type_not_allowed").await;
            assert_eq!(problem["errors"][0]["field"], field, "{name}: {problem}");
        }
    }
    json(raw(&app, "a.gz", "application/gzip", b"x").await, 202).await;
    json(session(&app, "a.png", "image/png", 1).await, 201).await;
}
