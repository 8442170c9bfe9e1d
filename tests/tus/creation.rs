use super::{OFFSET_STREAM, answered, base64, begin, header, offset, row, send, stored, tus};
use crate::support::TestApp;
use entity::file::FileStatus;

#[tokio::test]
async fn creation_answers_a_relative_location_and_an_expiry() {
    let app = TestApp::start().await;
    let response = send(tus(&app, "POST", "/v1/tus").header("Upload-Length", 10)).await;
    answered(&response, 201);
    let location = header(&response, "location").unwrap();
    assert!(location.starts_with("/v1/tus/"), "{location}");
    assert!(
        header(&response, "upload-expires")
            .unwrap()
            .ends_with(" GMT")
    );
    assert_eq!(offset(&app, location).await, 0);
    assert_eq!(row(&app, location).await.status, FileStatus::Uploading);
}

#[tokio::test]
async fn creation_needs_exactly_one_length() {
    let app = TestApp::start().await;
    let post = || tus(&app, "POST", "/v1/tus");
    for request in [
        post(),
        post()
            .header("Upload-Length", 1)
            .header("Upload-Defer-Length", 1),
        post().header("Upload-Defer-Length", 2),
        post().header("Upload-Defer-Length", ""),
        post().header("Upload-Length", "ten"),
        post().header("Upload-Length", -1),
        post().header("Upload-Length", ""),
    ] {
        answered(&send(request).await, 400);
    }
}

#[tokio::test]
async fn creation_above_the_maximum_is_too_large() {
    let app = TestApp::builder()
        .set("uploads.max_file_size", "1KiB")
        .start()
        .await;
    let post = |length| tus(&app, "POST", "/v1/tus").header("Upload-Length", length);
    answered(&send(post(1025)).await, 413);
    answered(&send(post(1024)).await, 201);
}

#[tokio::test]
async fn empty_upload_is_complete_at_once() {
    let app = TestApp::start().await;
    let response = send(tus(&app, "POST", "/v1/tus").header("Upload-Length", 0)).await;
    answered(&response, 201);
    let location = header(&response, "location").unwrap();
    let file = header(&response, "landfall-file").unwrap();
    assert_eq!(file.replace("files", "tus"), location);
    assert!(header(&response, "upload-expires").is_none());
    assert_eq!(stored(&app, location).await, b"");
}

#[tokio::test]
async fn metadata_names_the_file_and_is_echoed() {
    let app = TestApp::start().await;
    let metadata = format!(
        "filename {},filetype {},camera {}",
        base64("Straße 😀.png"),
        base64("image/png"),
        base64("X100")
    );
    let post = tus(&app, "POST", "/v1/tus").header("Upload-Length", 3);
    let response = send(post.header("Upload-Metadata", &metadata)).await;
    answered(&response, 201);
    let location = header(&response, "location").unwrap();
    let file = row(&app, location).await;
    assert_eq!(file.original_filename, "Straße 😀.png");
    assert_eq!(file.content_type, "image/png");
    assert_eq!(file.metadata, serde_json::json!({"camera": "X100"}));
    let response = send(tus(&app, "HEAD", location)).await;
    assert_eq!(
        header(&response, "upload-metadata"),
        Some(metadata.as_str())
    );
}

#[tokio::test]
async fn name_and_type_are_read_too() {
    let app = TestApp::start().await;
    let metadata = format!("name {},type {}", base64("b.txt"), base64("text/plain"));
    let post = tus(&app, "POST", "/v1/tus").header("Upload-Length", 3);
    let response = send(post.header("Upload-Metadata", metadata)).await;
    let file = row(&app, header(&response, "location").unwrap()).await;
    assert_eq!(
        (file.original_filename.as_str(), file.content_type.as_str()),
        ("b.txt", "text/plain")
    );
}

#[tokio::test]
async fn bad_metadata_is_rejected() {
    let app = TestApp::start().await;
    let long = format!("filename {}", base64("x".repeat(300)));
    for metadata in [
        "a YQ==,a Yg==",
        "a YQ==,,b Yg==",
        "filename !!!",
        "filename /w==",
        long.as_str(),
    ] {
        let post = tus(&app, "POST", "/v1/tus").header("Upload-Length", 3);
        let response = send(post.header("Upload-Metadata", metadata)).await;
        answered(&response, 400);
        let problem: serde_json::Value = response.json().await.unwrap();
        assert!(problem["code"].is_string(), "{problem}");
    }
}

#[tokio::test]
async fn types_that_are_not_allowed_are_rejected() {
    let app = TestApp::builder()
        .set("uploads.allowed_types", "image/*")
        .start()
        .await;
    let post = |kind: &str| {
        tus(&app, "POST", "/v1/tus")
            .header("Upload-Length", 3)
            .header("Upload-Metadata", format!("filetype {}", base64(kind)))
    };
    answered(&send(post("text/html")).await, 415);
    answered(&send(post("image/png")).await, 201);
}

#[tokio::test]
async fn creation_accepts_bytes() {
    let app = TestApp::start().await;
    let post = |length: usize| {
        tus(&app, "POST", "/v1/tus")
            .header("Upload-Length", length)
            .header("Content-Type", OFFSET_STREAM)
    };
    let response = send(post(5).body("hello")).await;
    answered(&response, 201);
    assert_eq!(header(&response, "upload-offset"), Some("5"));
    assert!(header(&response, "landfall-file").is_some());
    assert_eq!(
        stored(&app, header(&response, "location").unwrap()).await,
        b"hello"
    );
    let response = send(post(10).body("hello")).await;
    answered(&response, 201);
    assert_eq!(header(&response, "upload-offset"), Some("5"));
    assert_eq!(
        offset(&app, header(&response, "location").unwrap()).await,
        5
    );
    answered(&send(post(4).body("hello")).await, 413);
}

#[tokio::test]
async fn creation_with_bytes_of_another_type_is_rejected() {
    let app = TestApp::start().await;
    let post = tus(&app, "POST", "/v1/tus").header("Upload-Length", 5);
    let response = send(post.header("Content-Type", "text/plain").body("hello")).await;
    answered(&response, 415);
}

#[tokio::test]
async fn other_versions_are_rejected_and_nothing_is_done() {
    let app = TestApp::start().await;
    let path = begin(&app, 5).await;
    for version in [None, Some("0.2.2"), Some("1.0.1")] {
        for name in ["POST", "HEAD", "PATCH", "DELETE"] {
            let at = if name == "POST" { "/v1/tus" } else { &path };
            let mut request = app
                .request(super::method(name), at)
                .header("Upload-Length", 5)
                .header("Upload-Offset", 0)
                .header("Content-Type", OFFSET_STREAM);
            if let Some(version) = version {
                request = request.header("Tus-Resumable", version);
            }
            let response = send(request).await;
            answered(&response, 412);
            assert_eq!(header(&response, "tus-version"), Some("1.0.0"));
        }
    }
    assert_eq!(offset(&app, &path).await, 0);
}
