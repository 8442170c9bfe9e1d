use super::{answered, begin, begin_with, header, offset, patch, send, stored, tus};
use crate::support::TestApp;

#[tokio::test]
async fn head_has_offset_and_length_and_is_never_cached() {
    let app = TestApp::start().await;
    let path = begin(&app, 10).await;
    let response = send(tus(&app, "HEAD", &path)).await;
    answered(&response, 200);
    assert_eq!(header(&response, "upload-offset"), Some("0"));
    assert_eq!(header(&response, "upload-length"), Some("10"));
    assert_eq!(header(&response, "cache-control"), Some("no-store"));
    assert!(header(&response, "upload-defer-length").is_none());
}

#[tokio::test]
async fn head_answers_after_completion_and_after_finalize() {
    let app = TestApp::start().await;
    let path = begin(&app, 5).await;
    answered(&send(patch(&app, &path, 0, "hello")).await, 204);
    assert_eq!(offset(&app, &path).await, 5);
    stored(&app, &path).await;
    let response = send(tus(&app, "HEAD", &path)).await;
    answered(&response, 200);
    assert_eq!(header(&response, "upload-offset"), Some("5"));
    assert!(header(&response, "landfall-file").is_some());
}

#[tokio::test]
async fn unknown_uploads_are_404_without_an_offset() {
    let app = TestApp::start().await;
    for id in ["0192f0c1-0000-7000-8000-000000000000", "nonsense"] {
        let path = format!("/v1/tus/{id}");
        for request in [
            tus(&app, "HEAD", &path),
            patch(&app, &path, 0, "hello"),
            tus(&app, "DELETE", &path),
            tus(&app, "GET", &path),
        ] {
            let response = send(request).await;
            answered(&response, 404);
            assert!(header(&response, "upload-offset").is_none());
        }
    }
}

#[tokio::test]
async fn options_lists_capabilities_for_any_version() {
    let app = TestApp::start().await;
    for path in ["/v1/tus", "/v1/tus/0192f0c1-0000-7000-8000-000000000000"] {
        for version in ["1.0.0", "9.9.9"] {
            let request = app.request(super::method("OPTIONS"), path);
            let response = send(request.header("Tus-Resumable", version)).await;
            assert_eq!(response.status(), 204);
            assert_eq!(header(&response, "tus-version"), Some("1.0.0"));
            let extensions = header(&response, "tus-extension").unwrap();
            for extension in [
                "creation",
                "creation-with-upload",
                "creation-defer-length",
                "expiration",
                "checksum",
                "termination",
                "concatenation",
                "concatenation-unfinished",
            ] {
                assert!(
                    extensions.split(',').any(|one| one == extension),
                    "{extension}"
                );
            }
            assert_eq!(header(&response, "tus-max-size"), Some("53687091200"));
            let algorithms = header(&response, "tus-checksum-algorithm").unwrap();
            for algorithm in ["sha1", "sha256", "md5", "crc32"] {
                assert!(
                    algorithms.split(',').any(|one| one == algorithm),
                    "{algorithm}"
                );
            }
            assert!(
                header(&response, "upload-limit")
                    .unwrap()
                    .contains("max-size=53687091200")
            );
        }
    }
}

#[tokio::test]
async fn method_override_replaces_the_method() {
    let app = TestApp::start().await;
    let path = begin(&app, 5).await;
    let post = |name: &str| tus(&app, "POST", &path).header("X-HTTP-Method-Override", name);
    let request = post("PATCH")
        .header("Upload-Offset", 0)
        .header("Content-Type", super::OFFSET_STREAM);
    let response = send(request.body("hello")).await;
    answered(&response, 204);
    let response = send(post("HEAD")).await;
    answered(&response, 200);
    assert_eq!(header(&response, "upload-offset"), Some("5"));
    answered(&send(post("BREW")).await, 400);
    stored(&app, &path).await;
    answered(&send(post("DELETE")).await, 204);
    answered(&send(tus(&app, "HEAD", &path)).await, 404);
}

#[tokio::test]
async fn get_returns_the_bytes_right_after_the_last_patch() {
    let app = TestApp::start().await;
    let bytes: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
    let path = begin_with(
        &app,
        bytes.len(),
        &[("Upload-Metadata", "filetype aW1hZ2UvcG5n")],
    )
    .await;
    answered(&send(tus(&app, "GET", &path)).await, 409);
    answered(&send(patch(&app, &path, 0, bytes.clone())).await, 204);
    // From staging, from storage, and during the transfer.
    for _ in 0..20 {
        let response = send(app.request(super::method("GET"), &path)).await;
        answered(&response, 200);
        assert_eq!(header(&response, "content-type"), Some("image/png"));
        assert_eq!(response.bytes().await.unwrap(), bytes);
    }
    stored(&app, &path).await;
    let response = send(tus(&app, "GET", &path)).await;
    assert_eq!(response.bytes().await.unwrap(), bytes);
}

#[tokio::test]
async fn unsupported_methods_are_rejected() {
    let app = TestApp::start().await;
    let path = begin(&app, 5).await;
    for request in [
        tus(&app, "PUT", &path),
        tus(&app, "POST", &path),
        tus(&app, "PATCH", "/v1/tus"),
    ] {
        let response = send(request).await;
        answered(&response, 405);
        assert!(header(&response, "allow").unwrap().contains("OPTIONS"));
    }
}
