//! The IETF draft on the same URLs.

use super::{header, method, send, stored};
use crate::support::TestApp;
use reqwest::{RequestBuilder, Response};
use serde_json::Value;

const PARTIAL_UPLOAD: &str = "application/partial-upload";
const TYPES: &str = "https://iana.org/assignments/http-problem-types";

fn draft(app: &TestApp, name: &str, path: &str, version: &str) -> RequestBuilder {
    app.request(method(name), path)
        .header("Upload-Draft-Interop-Version", version)
}

fn create(app: &TestApp, complete: &str) -> RequestBuilder {
    draft(app, "POST", "/v1/tus", "6").header("Upload-Complete", complete)
}

fn append(
    app: &TestApp,
    path: &str,
    offset: usize,
    complete: &str,
    body: &'static str,
) -> RequestBuilder {
    draft(app, "PATCH", path, "6")
        .header("Upload-Complete", complete)
        .header("Upload-Offset", offset)
        .header("Content-Type", PARTIAL_UPLOAD)
        .body(body)
}

fn says(response: &Response, status: u16, offset: &str, complete: &str) {
    assert_eq!(response.status(), status, "{response:?}");
    assert_eq!(header(response, "upload-offset"), Some(offset));
    assert_eq!(header(response, "upload-complete"), Some(complete));
}

#[tokio::test]
async fn upload_in_pieces_is_resumed_and_completed() {
    let app = TestApp::start().await;
    for version in ["6", "8"] {
        let request = draft(&app, "POST", "/v1/tus", version)
            .header("Upload-Complete", "?0")
            .header("Content-Type", "text/plain")
            .body("hello ");
        let response = send(request).await;
        says(&response, 201, "6", "?0");
        assert_eq!(
            header(&response, "upload-draft-interop-version"),
            Some(version)
        );
        let limit = header(&response, "upload-limit").unwrap();
        for name in [
            "max-size",
            "min-size",
            "max-append-size",
            "min-append-size",
            "max-age",
        ] {
            assert!(limit.contains(name), "{limit}");
        }
        let path = header(&response, "location").unwrap();
        let response = send(draft(&app, "HEAD", path, version)).await;
        says(&response, 204, "6", "?0");
        assert_eq!(header(&response, "cache-control"), Some("no-store"));
        assert!(header(&response, "upload-limit").is_some());
        says(
            &send(append(&app, path, 6, "?0", "wor")).await,
            204,
            "9",
            "?0",
        );
        says(
            &send(append(&app, path, 9, "?1", "ld")).await,
            204,
            "11",
            "?1",
        );
        says(
            &send(draft(&app, "HEAD", path, version)).await,
            204,
            "11",
            "?1",
        );
        assert_eq!(stored(&app, path).await, b"hello world");
        assert_eq!(super::row(&app, path).await.content_type, "text/plain");
    }
}

#[tokio::test]
async fn whole_file_in_one_request_is_complete() {
    let app = TestApp::start().await;
    let response = send(create(&app, "?1").body("hello")).await;
    says(&response, 201, "5", "?1");
    assert_eq!(header(&response, "upload-length"), Some("5"));
    assert!(header(&response, "landfall-file").is_some());
    assert_eq!(
        stored(&app, header(&response, "location").unwrap()).await,
        b"hello"
    );
    let response = send(create(&app, "?1")).await;
    says(&response, 201, "0", "?1");
}

#[tokio::test]
async fn wrong_offset_is_a_conflict_with_the_expected_one() {
    let app = TestApp::start().await;
    let response = send(create(&app, "?0").body("hello")).await;
    let path = header(&response, "location").unwrap();
    let response = send(append(&app, path, 3, "?1", "lo")).await;
    says(&response, 409, "5", "?0");
    assert_eq!(
        header(&response, "content-type"),
        Some("application/problem+json")
    );
    let problem: Value = response.json().await.unwrap();
    assert_eq!(
        problem["type"],
        format!("{TYPES}#mismatching-upload-offset")
    );
    assert_eq!(problem["expected-offset"], 5);
    assert_eq!(problem["provided-offset"], 3);
}

#[tokio::test]
async fn contradictory_lengths_are_rejected() {
    let app = TestApp::start().await;
    let refused = async |request: RequestBuilder| {
        let response = send(request).await;
        assert_eq!(response.status(), 400);
        let problem: Value = response.json().await.unwrap();
        assert_eq!(
            problem["type"],
            format!("{TYPES}#inconsistent-upload-length")
        );
    };
    refused(create(&app, "?1").header("Upload-Length", 6).body("hello")).await;
    let response = send(create(&app, "?0").header("Upload-Length", 10).body("hello")).await;
    let path = header(&response, "location").unwrap();
    refused(append(&app, path, 5, "?1", "wor")).await;
    refused(append(&app, path, 5, "?0", "world!")).await;
    refused(append(&app, path, 5, "?0", "w").header("Upload-Length", 11)).await;
    let same = append(&app, path, 5, "?1", "world").header("Upload-Length", 10);
    says(&send(same).await, 204, "10", "?1");
}

#[tokio::test]
async fn complete_uploads_accept_nothing_more() {
    let app = TestApp::start().await;
    let response = send(create(&app, "?1").body("hello")).await;
    let path = header(&response, "location").unwrap();
    let response = send(append(&app, path, 5, "?1", "")).await;
    assert_eq!(response.status(), 400);
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["type"], format!("{TYPES}#completed-upload"));
}

#[tokio::test]
async fn requests_are_parsed_strictly() {
    let app = TestApp::start().await;
    let response = send(create(&app, "?0")).await;
    says(&response, 201, "0", "?0");
    let path = header(&response, "location").unwrap();
    let other_type = draft(&app, "PATCH", path, "6")
        .header("Upload-Complete", "?0")
        .header("Upload-Offset", 0)
        .header("Content-Type", "text/plain");
    assert_eq!(send(other_type.body("x")).await.status(), 415);
    assert_eq!(send(create(&app, "yes")).await.status(), 400);
    assert_eq!(send(draft(&app, "HEAD", path, "3")).await.status(), 400);
    assert_eq!(send(draft(&app, "DELETE", path, "6")).await.status(), 204);
    assert_eq!(send(draft(&app, "HEAD", path, "6")).await.status(), 404);
}

#[tokio::test]
async fn metadata_of_tus_names_the_file() {
    let app = TestApp::start().await;
    let metadata = format!(
        "filename {}, filetype {}",
        super::base64("Straße.txt"),
        super::base64("text/plain")
    );
    let response = send(
        create(&app, "?1")
            .header("Upload-Metadata", metadata)
            .body("hello"),
    )
    .await;
    says(&response, 201, "5", "?1");
    let file = super::row(&app, header(&response, "location").unwrap()).await;
    assert_eq!(
        (file.original_filename.as_str(), file.content_type.as_str()),
        ("Straße.txt", "text/plain")
    );
}
