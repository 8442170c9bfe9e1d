//! `POST /v1/files`.

use super::{file, nothing_is_left, send, without_workers};
use crate::support::{
    TestApp,
    app::{json, problem},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use landfall_core::digest::Sha256Digest;
use reqwest::{
    Body,
    multipart::{Form, Part},
};
use serde_json::json;

fn content_digest(bytes: &[u8]) -> String {
    format!(
        "sha-256=:{}:",
        STANDARD.encode(Sha256Digest::compute(bytes).0)
    )
}

#[tokio::test]
async fn form_fields_may_come_before_and_after_the_file() {
    let app = TestApp::start().await;
    let sha256 = Sha256Digest::compute(b"hello").to_string();
    let form = Form::new()
        .text("metadata", r#"{"album":"été"}"#)
        .part(
            "file",
            file("a.txt", b"hello")
                .mime_str("text/plain")
                .expect("a type"),
        )
        .text("sha256", sha256.clone())
        .text("expires_in", "3600");
    let response = send(&app, form).await;
    let location = response.headers()["location"]
        .to_str()
        .expect("text")
        .to_owned();
    let taken = json(response, 202).await;
    assert_eq!(
        location,
        format!("/v1/files/{}", taken["id"].as_str().expect("an id"))
    );
    assert_eq!(taken["metadata"], json!({ "album": "été" }));
    assert_eq!(taken["content_type"], "text/plain");
    assert!(taken["expires_at"].is_string());
    let stored = app.settled(&taken["id"]).await;
    assert_eq!(stored["status"], "stored", "{stored}");
    assert_eq!(stored["sha256"], sha256);
}

#[tokio::test]
async fn a_raw_body_is_named_by_the_query_or_by_content_disposition() {
    let app = without_workers().await;
    let taken = app.upload("Zürich 🚢.txt", "hello").await;
    assert_eq!(taken["original_filename"], "Zürich 🚢.txt");
    let named = app
        .post("/v1/files")
        .header(
            "content-disposition",
            "attachment; filename*=UTF-8''Z%C3%BCrich.png",
        )
        .header("content-type", "image/png")
        .body("hello");
    let taken = json(named.send().await.expect("a response"), 202).await;
    assert_eq!(taken["original_filename"], "Zürich.png");
    assert_eq!(taken["content_type"], "image/png");
    let nameless = app.post("/v1/files").body("hello").send().await;
    problem(nameless.expect("a response"), 400, "invalid_name").await;
}

#[tokio::test]
async fn a_form_needs_exactly_one_file() {
    let app = without_workers().await;
    let none = Form::new().text("metadata", "{}");
    problem(send(&app, none).await, 400, "missing_file").await;
    let two = Form::new()
        .part("file", file("a", b"a"))
        .part("file", file("b", b"b"));
    problem(send(&app, two).await, 400, "too_many_files").await;
    let bare = app.post("/v1/files").send().await.expect("a response");
    problem(bare, 400, "missing_file").await;
    nothing_is_left(&app).await;
}

#[tokio::test]
async fn empty_files_are_rejected() {
    let app = without_workers().await;
    let form = Form::new().part("file", file("a", b""));
    problem(send(&app, form).await, 400, "empty_file").await;
    let raw = app.post("/v1/files?filename=a").body("").send().await;
    problem(raw.expect("a response"), 400, "empty_file").await;
    nothing_is_left(&app).await;
}

#[tokio::test]
async fn invalid_names_are_rejected() {
    let app = without_workers().await;
    let long = "x".repeat(300);
    for name in [
        "",
        " ",
        "..",
        "../..",
        "a\0b",
        "a\u{1}b",
        "a\u{85}b",
        long.as_str(),
    ] {
        let form = Form::new().part("file", file(name, b"a"));
        let refused = problem(send(&app, form).await, 400, "invalid_name").await;
        assert_eq!(refused["errors"][0]["field"], "filename");
        let raw = app.post("/v1/files").query(&[("filename", name)]).body("a");
        problem(raw.send().await.expect("a response"), 400, "invalid_name").await;
    }
    nothing_is_left(&app).await;
}

#[tokio::test]
async fn odd_names_are_kept_as_they_are() {
    let app = TestApp::start().await;
    for name in [
        "a/b\\c.txt",
        "CON",
        "\u{202e}gpj.exe",
        "🚢🚢.tar.gz",
        ".hidden",
        "a\"b;c.txt",
        "100%25.txt",
    ] {
        let taken = app.upload(name, "hello").await;
        assert_eq!(taken["original_filename"], name);
        let form = Form::new().part("file", file(name, b"hello"));
        let taken = json(send(&app, form).await, 202).await;
        assert_eq!(taken["original_filename"], name);
        let stored = app.settled(&taken["id"]).await;
        assert_eq!(stored["status"], "stored", "{stored}");
    }
}

#[tokio::test]
async fn files_over_the_limit_are_rejected_with_and_without_declared_length() {
    let app = TestApp::builder()
        .workers(&[])
        .set("uploads.max_file_size", "1KiB")
        .start()
        .await;
    app.upload("just fits", vec![7; 1024]).await;
    let app = TestApp::builder()
        .workers(&[])
        .set("uploads.max_file_size", "1KiB")
        .start()
        .await;
    let said = app.post("/v1/files?filename=a").body(vec![7; 1025]);
    problem(said.send().await.expect("a response"), 413, "too_large").await;
    let pieces = (0..64).map(|_| Ok::<_, std::io::Error>(vec![7_u8; 4096]));
    let stream = Body::wrap_stream(futures::stream::iter(pieces));
    let unsaid = app.post("/v1/files?filename=a").body(stream);
    problem(unsaid.send().await.expect("a response"), 413, "too_large").await;
    let form = Form::new().part("file", file("a", vec![7; 1025]));
    problem(send(&app, form).await, 413, "too_large").await;
    nothing_is_left(&app).await;
}

#[tokio::test]
async fn a_large_rejected_body_still_gets_its_response() {
    let app = TestApp::builder()
        .workers(&[])
        .set("uploads.max_file_size", "1MiB")
        .start()
        .await;
    let form = Form::new().part("file", file("a", vec![7; 32 * 1024 * 1024]));
    problem(send(&app, form).await, 413, "too_large").await;
    nothing_is_left(&app).await;
}

#[tokio::test]
async fn wrong_digests_are_rejected_in_headers_and_fields() {
    let app = without_workers().await;
    let wrong = Sha256Digest::compute(b"other").to_string();
    for name in ["content-digest", "repr-digest"] {
        let raw = app.post("/v1/files?filename=a").body("hello");
        let raw = raw.header(name, content_digest(b"other")).send().await;
        problem(raw.expect("a response"), 422, "digest_mismatch").await;
    }
    let raw = app.post(&format!("/v1/files?filename=a&sha256={wrong}"));
    let raw = raw.body("hello").send().await;
    problem(raw.expect("a response"), 422, "digest_mismatch").await;
    let before = Form::new()
        .text("sha256", wrong.clone())
        .part("file", file("a", b"hello"));
    problem(send(&app, before).await, 422, "digest_mismatch").await;
    let after = Form::new()
        .part("file", file("a", b"hello"))
        .text("sha256", wrong);
    problem(send(&app, after).await, 422, "digest_mismatch").await;
    let whole = app
        .post("/v1/files")
        .multipart(Form::new().part("file", file("a", b"hello")));
    let whole = whole
        .header("content-digest", content_digest(b"hello"))
        .send()
        .await;
    problem(whole.expect("a response"), 422, "digest_mismatch").await;
    nothing_is_left(&app).await;
}

#[tokio::test]
async fn matching_digests_pass_and_malformed_ones_are_rejected() {
    let app = without_workers().await;
    let raw = app.post("/v1/files?filename=a").body("hello");
    let raw = raw.header(
        "content-digest",
        format!("sha-512=:AAAA:, {}", content_digest(b"hello")),
    );
    json(raw.send().await.expect("a response"), 202).await;
    let body = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nhello\r\n--x--\r\n";
    let whole = app
        .post("/v1/files")
        .header("content-type", "multipart/form-data; boundary=x")
        .header("content-digest", content_digest(body.as_bytes()))
        .body(body);
    json(whole.send().await.expect("a response"), 202).await;
    for wrong in ["sha-256=:AAAA:", "sha-256=abc", "nonsense"] {
        let raw = app.post("/v1/files?filename=a").body("hello");
        let raw = raw.header("content-digest", wrong).send().await;
        problem(raw.expect("a response"), 400, "malformed_request").await;
    }
}

#[tokio::test]
async fn metadata_is_a_json_object_of_bounded_size() {
    let app = without_workers().await;
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let deep = format!("{{\"a\":{deep}}}");
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(16 * 1024));
    for metadata in [
        "",
        "{",
        "[]",
        "\"a\"",
        "null",
        "{\"a\":\"\\u0000\"}",
        &deep,
        &large,
    ] {
        let form = Form::new()
            .text("metadata", metadata.to_owned())
            .part("file", file("a", b"a"));
        problem(send(&app, form).await, 400, "invalid_metadata").await;
        let after = Form::new()
            .part("file", file("a", b"a"))
            .text("metadata", metadata.to_owned());
        problem(send(&app, after).await, 400, "invalid_metadata").await;
    }
    nothing_is_left(&app).await;
}

#[tokio::test]
async fn unknown_form_fields_are_ignored_and_invalid_ones_named() {
    let app = without_workers().await;
    // As `@uppy/xhr-upload` and Dropzone send them, and more than is read at once.
    let others = Form::new()
        .text("relativePath", "null")
        .text("name", "a.txt")
        .text("type", "text/plain")
        .text("dztotalfilesize", "x".repeat(300 * 1024))
        .part("file", file("a", b"a"))
        .text("name", "again");
    json(send(&app, others).await, 202).await;
    let only = Form::new().text("name", "a.txt");
    problem(send(&app, only).await, 400, "missing_file").await;
    let endless = Form::new()
        .text("x", "x".repeat(2 * 1024 * 1024))
        .part("file", file("a", b"a"));
    problem(send(&app, endless).await, 413, "too_large").await;
    for (name, value) in [
        ("expires_in", "0"),
        ("expires_in", "soon"),
        ("expires_in", "-1"),
        ("batch_id", "none"),
        ("sha256", "abc"),
    ] {
        let form = Form::new().part("file", file("a", b"a")).text(name, value);
        let refused = problem(send(&app, form).await, 400, "malformed_request").await;
        assert_eq!(refused["errors"][0]["field"], name);
    }
    let twice = Form::new()
        .text("expires_in", "9")
        .text("expires_in", "9")
        .part("file", file("a", b"a"));
    problem(send(&app, twice).await, 400, "malformed_request").await;
}

#[tokio::test]
async fn a_batch_that_does_not_exist_is_rejected() {
    let app = without_workers().await;
    let form = Form::new()
        .text("batch_id", uuid::Uuid::now_v7().to_string())
        .part("file", file("a", b"a"));
    let refused = problem(send(&app, form).await, 404, "not_found").await;
    assert_eq!(refused["errors"][0]["field"], "batch_id");
    nothing_is_left(&app).await;
}

#[tokio::test]
async fn invalid_forms_are_malformed() {
    let app = without_workers().await;
    let end = "--x--\r\n";
    for body in [
        String::new(),
        "nonsense".to_owned(),
        "--x\r\n".to_owned(),
        format!("--x\r\nContent-Disposition: form-data\r\n\r\nhello\r\n{end}"),
        "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nhello"
            .to_owned(),
        format!("--x\r\nbad header\r\n\r\nhello\r\n{end}"),
    ] {
        let form = app.post("/v1/files").body(body);
        let form = form.header("content-type", "multipart/form-data; boundary=x");
        problem(
            form.send().await.expect("a response"),
            400,
            "malformed_request",
        )
        .await;
    }
    for content_type in ["multipart/form-data", "multipart/form-data; boundary=\"\""] {
        let form = app
            .post("/v1/files")
            .header("content-type", content_type)
            .body("a");
        problem(
            form.send().await.expect("a response"),
            400,
            "malformed_request",
        )
        .await;
    }
    nothing_is_left(&app).await;
}

#[tokio::test]
async fn headers_of_parts_are_bounded() {
    let app = without_workers().await;
    let endless = (0..128).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 64 * 1024]));
    let start = std::iter::once(Ok(b"--x\r\nContent-Disposition: ".to_vec()));
    let stream = Body::wrap_stream(futures::stream::iter(start.chain(endless)));
    let form = app.post("/v1/files").body(stream);
    let form = form.header("content-type", "multipart/form-data; boundary=x");
    problem(form.send().await.expect("a response"), 413, "too_large").await;
    nothing_is_left(&app).await;
}

#[tokio::test]
async fn content_types_are_checked() {
    let app = TestApp::builder()
        .workers(&[])
        .set("uploads.allowed_types", "image/*,application/pdf")
        .start()
        .await;
    for (content_type, code) in [
        ("text/plain", "type_not_allowed"),
        ("nonsense", "unsupported_media_type"),
        ("image/", "unsupported_media_type"),
        ("multipart/mixed; boundary=x", "unsupported_media_type"),
    ] {
        let raw = app
            .post("/v1/files?filename=a")
            .header("content-type", content_type);
        problem(raw.body("a").send().await.expect("a response"), 415, code).await;
    }
    let part = Part::bytes(b"a".as_slice())
        .file_name("a")
        .mime_str("text/plain");
    let form = Form::new().part("file", part.expect("a type"));
    problem(send(&app, form).await, 415, "type_not_allowed").await;
    nothing_is_left(&app).await;
    for content_type in ["image/PNG", "application/pdf; version=2"] {
        let raw = app
            .post("/v1/files?filename=a")
            .header("content-type", content_type);
        // A file that is not an image is rejected by its bytes, whatever the case of its type.
        let body = match content_type {
            "image/PNG" => b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".as_slice(),
            _ => b"a",
        };
        json(raw.body(body).send().await.expect("a response"), 202).await;
    }
}

#[tokio::test]
async fn full_staging_is_reported_and_keeps_nothing() {
    let app = TestApp::builder()
        .workers(&[])
        .set("staging.quota", "64KiB")
        .start()
        .await;
    let raw = app.post("/v1/files?filename=a").body(vec![7; 256 * 1024]);
    problem(raw.send().await.expect("a response"), 507, "staging_full").await;
    let form = Form::new().part("file", file("a", vec![7; 4 * 1024 * 1024]));
    problem(send(&app, form).await, 507, "staging_full").await;
    nothing_is_left(&app).await;
}
