//! `/v1/uploads`: upload sessions, over HTTP.

use crate::support::{
    TestApp,
    app::{json, problem},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use landfall_core::digest::Sha256Digest;
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};

const CHUNK: usize = 64 * 1024;

fn bytes(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at % 251) as u8).collect()
}

async fn send(request: RequestBuilder) -> Response {
    request.send().await.expect("a response")
}

fn new(size: usize) -> Value {
    json!({
        "original_filename": "Straße 😀.bin",
        "content_type": "application/octet-stream",
        "total_size_bytes": size,
        "chunk_size_bytes": CHUNK,
        "metadata": {"album": "summer"},
    })
}

async fn begin(app: &TestApp, body: &Value) -> Value {
    let response = send(app.post("/v1/uploads").json(body)).await;
    let location = response.headers()["location"]
        .to_str()
        .expect("text")
        .to_owned();
    let session = json(response, 201).await;
    assert_eq!(
        location,
        format!("/v1/uploads/{}", session["id"].as_str().expect("an id"))
    );
    session
}

fn path(session: &Value) -> String {
    format!("/v1/uploads/{}", session["id"].as_str().expect("an id"))
}

fn put(app: &TestApp, session: &Value, number: usize, bytes: &[u8]) -> RequestBuilder {
    let path = format!("{}/parts/{number}", path(session));
    app.request(Method::PUT, &path).body(bytes.to_vec())
}

fn complete(app: &TestApp, session: &Value) -> RequestBuilder {
    app.post(&format!("{}/complete", path(session)))
}

#[tokio::test]
async fn parts_in_any_order_become_a_stored_file() {
    let app = TestApp::start().await;
    let bytes = bytes(CHUNK * 3 + 10);
    let session = begin(&app, &new(bytes.len())).await;
    assert_eq!(session["status"], "init");
    assert_eq!(session["total_parts"], 4);
    assert_eq!(session["chunk_size_bytes"], CHUNK);
    assert_eq!(session["received_parts"], "");
    let parts: Vec<&[u8]> = bytes.chunks(CHUNK).collect();
    for number in [4, 1, 3] {
        let part = json(
            send(put(&app, &session, number, parts[number - 1])).await,
            200,
        )
        .await;
        let digest = Sha256Digest::compute(parts[number - 1]).to_string();
        let size = parts[number - 1].len();
        assert_eq!(
            part,
            json!({"part_number": number, "size_bytes": size, "sha256": digest})
        );
    }
    let now = json(send(app.get(&path(&session))).await, 200).await;
    assert_eq!(now["received_parts"], "1,3-4");
    assert_eq!(
        (&now["status"], &now["completed_parts"]),
        (&json!("in_progress"), &json!(3))
    );
    let missing = problem(send(complete(&app, &session)).await, 409, "parts_missing").await;
    assert!(
        missing["detail"].as_str().unwrap().contains(" 2 "),
        "{missing}"
    );
    json(send(put(&app, &session, 2, parts[1])).await, 200).await;
    let file = json(send(complete(&app, &session)).await, 202).await;
    assert_eq!(file["id"], session["file_id"]);
    let again = json(send(complete(&app, &session)).await, 202).await;
    assert_eq!(again["id"], file["id"]);
    let stored = app.settled(&file["id"]).await;
    assert_eq!(stored["status"], "stored");
    assert_eq!(stored["original_filename"], "Straße 😀.bin");
    assert_eq!(stored["metadata"], json!({"album": "summer"}));
    assert_eq!(stored["sha256"], Sha256Digest::compute(&bytes).to_string());
    let content = send(app.client.get(stored["url"].as_str().unwrap())).await;
    assert!(content.bytes().await.unwrap() == bytes);
    let now = json(send(app.get(&path(&session))).await, 200).await;
    assert_eq!(
        (&now["status"], &now["received_parts"]),
        (&json!("complete"), &json!("1-4"))
    );
}

#[tokio::test]
async fn repeated_parts_are_compared_by_their_bytes() {
    let app = TestApp::start().await;
    let bytes = bytes(CHUNK + 10);
    let session = begin(&app, &new(bytes.len())).await;
    let first = json(send(put(&app, &session, 2, &bytes[CHUNK..])).await, 200).await;
    let again = json(send(put(&app, &session, 2, &bytes[CHUNK..])).await, 200).await;
    assert_eq!(first, again);
    problem(
        send(put(&app, &session, 2, &[7; 10])).await,
        409,
        "part_conflict",
    )
    .await;
    problem(
        send(put(&app, &session, 2, &[7; 9])).await,
        422,
        "size_mismatch",
    )
    .await;
    problem(
        send(put(&app, &session, 1, &[7; 11])).await,
        422,
        "size_mismatch",
    )
    .await;
    for number in [0, 3, 99_999] {
        problem(
            send(put(&app, &session, number, &[7; 10])).await,
            404,
            "not_found",
        )
        .await;
    }
}

#[tokio::test]
async fn content_digest_of_a_part_is_checked() {
    let app = TestApp::start().await;
    let session = begin(&app, &new(10)).await;
    let digest = |bytes: &[u8]| {
        format!(
            "sha-256=:{}:",
            STANDARD.encode(Sha256Digest::compute(bytes).0)
        )
    };
    let part = |digest: String| put(&app, &session, 1, &[7; 10]).header("Content-Digest", digest);
    problem(send(part(digest(b"other"))).await, 422, "digest_mismatch").await;
    problem(
        send(part("sha-256=nonsense".to_owned())).await,
        400,
        "malformed_request",
    )
    .await;
    json(send(part(digest(&[7; 10]))).await, 200).await;
}

#[tokio::test]
async fn declared_digest_of_the_whole_is_checked_by_finalize() {
    let app = TestApp::start().await;
    let mut body = new(10);
    body["sha256"] = json!(Sha256Digest::compute(b"other").to_string());
    let session = begin(&app, &body).await;
    json(send(put(&app, &session, 1, &[7; 10])).await, 200).await;
    let file = json(send(complete(&app, &session)).await, 202).await;
    let failed = app.settled(&file["id"]).await;
    assert_eq!(
        (&failed["status"], &failed["error"]["code"]),
        (&json!("failed"), &json!("digest_mismatch"))
    );
}

#[tokio::test]
async fn invalid_sessions_are_rejected() {
    let app = TestApp::builder()
        .set("uploads.max_file_size", "1MiB")
        .start()
        .await;
    let with = |field: &str, value: Value| {
        let mut body = new(10);
        body[field] = value;
        app.post("/v1/uploads").json(&body)
    };
    problem(
        send(with("total_size_bytes", json!(0))).await,
        400,
        "empty_file",
    )
    .await;
    problem(
        send(with("total_size_bytes", json!(-1))).await,
        400,
        "malformed_request",
    )
    .await;
    problem(
        send(with("total_size_bytes", json!(1024 * 1024 + 1))).await,
        413,
        "too_large",
    )
    .await;
    let nameless = send(with("original_filename", json!(""))).await;
    let nameless = problem(nameless, 400, "invalid_name").await;
    assert_eq!(nameless["errors"][0]["field"], "original_filename");
    problem(
        send(with("metadata", json!([]))).await,
        400,
        "invalid_metadata",
    )
    .await;
    problem(
        send(with("sha256", json!("abc"))).await,
        400,
        "malformed_request",
    )
    .await;
    problem(
        send(with("part_size", json!(5))).await,
        400,
        "unknown_field",
    )
    .await;
    let unknown = json!("0192f0c1-0000-7000-8000-000000000000");
    problem(send(with("batch_id", unknown)).await, 404, "not_found").await;
}

#[tokio::test]
async fn aborted_sessions_accept_nothing_more() {
    let app = TestApp::start().await;
    let session = begin(&app, &new(CHUNK + 10)).await;
    json(send(put(&app, &session, 2, &[7; 10])).await, 200).await;
    for _ in 0..2 {
        assert_eq!(send(app.delete(&path(&session))).await.status(), 204);
    }
    let now = json(send(app.get(&path(&session))).await, 200).await;
    assert_eq!(now["status"], "aborted");
    problem(
        send(put(&app, &session, 1, &[7; CHUNK])).await,
        409,
        "upload_closed",
    )
    .await;
    problem(send(complete(&app, &session)).await, 409, "upload_closed").await;
    let file = app.settled(&session["file_id"]).await;
    assert_eq!(
        (&file["status"], &file["error"]["code"]),
        (&json!("failed"), &json!("upload_aborted"))
    );
}

#[tokio::test]
async fn complete_sessions_are_not_aborted() {
    let app = TestApp::start().await;
    let session = begin(&app, &new(10)).await;
    json(send(put(&app, &session, 1, &[7; 10])).await, 200).await;
    json(send(complete(&app, &session)).await, 202).await;
    problem(
        send(app.delete(&path(&session))).await,
        409,
        "upload_closed",
    )
    .await;
    problem(
        send(put(&app, &session, 1, &[7; 10])).await,
        409,
        "upload_closed",
    )
    .await;
}

#[tokio::test]
async fn idempotency_key_creates_one_session() {
    let app = TestApp::start().await;
    let post = |size| {
        app.post("/v1/uploads")
            .header("Idempotency-Key", "k-1")
            .json(&new(size))
    };
    let first = json(send(post(10)).await, 201).await;
    let again = json(send(post(10)).await, 201).await;
    assert_eq!(first["id"], again["id"]);
    problem(send(post(11)).await, 422, "idempotency_key_reused").await;
}

#[tokio::test]
async fn other_uploads_are_not_sessions() {
    let app = TestApp::start().await;
    let request = app
        .post("/v1/tus")
        .header("Tus-Resumable", "1.0.0")
        .header("Upload-Length", 10);
    let location = send(request).await.headers()["location"]
        .to_str()
        .unwrap()
        .replace("tus", "uploads");
    problem(send(app.get(&location)).await, 404, "not_found").await;
    problem(send(app.delete(&location)).await, 404, "not_found").await;
    problem(
        send(app.get("/v1/uploads/nonsense")).await,
        404,
        "not_found",
    )
    .await;
}
