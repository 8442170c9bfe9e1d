use super::{OFFSET_STREAM, answered, begin, header, offset, patch, send, stored, tus};
use crate::support::TestApp;
use futures::{StreamExt, future::join_all};

#[tokio::test]
async fn patches_make_the_file() {
    let app = TestApp::start().await;
    let path = begin(&app, 11).await;
    let response = send(patch(&app, &path, 0, "hello")).await;
    answered(&response, 204);
    assert_eq!(header(&response, "upload-offset"), Some("5"));
    assert!(header(&response, "upload-expires").is_some());
    assert!(header(&response, "landfall-file").is_none());
    let response = send(patch(&app, &path, 5, " world")).await;
    answered(&response, 204);
    assert_eq!(header(&response, "upload-offset"), Some("11"));
    assert!(header(&response, "upload-expires").is_none());
    let file = header(&response, "landfall-file").unwrap();
    assert_eq!(file.replace("files", "tus"), path);
    assert_eq!(stored(&app, &path).await, b"hello world");
}

#[tokio::test]
async fn wrong_content_type_is_rejected() {
    let app = TestApp::start().await;
    let path = begin(&app, 5).await;
    for kind in [None, Some("application/octet-stream"), Some("text/plain")] {
        let mut request = tus(&app, "PATCH", &path).header("Upload-Offset", 0);
        if let Some(kind) = kind {
            request = request.header("Content-Type", kind);
        }
        answered(&send(request.body("hello")).await, 415);
    }
    assert_eq!(offset(&app, &path).await, 0);
}

#[tokio::test]
async fn wrong_offset_is_a_conflict_and_changes_nothing() {
    let app = TestApp::start().await;
    let path = begin(&app, 10).await;
    answered(&send(patch(&app, &path, 0, "hello")).await, 204);
    for wrong in [0, 4, 6, 10, 1000] {
        answered(&send(patch(&app, &path, wrong, "hello")).await, 409);
        assert_eq!(offset(&app, &path).await, 5);
    }
    for wrong in ["-1", "five", ""] {
        let request = tus(&app, "PATCH", &path).header("Content-Type", OFFSET_STREAM);
        answered(
            &send(request.header("Upload-Offset", wrong).body("x")).await,
            400,
        );
    }
    let request = tus(&app, "PATCH", &path).header("Content-Type", OFFSET_STREAM);
    answered(&send(request.body("x")).await, 400);
}

#[tokio::test]
async fn one_of_two_racing_patches_wins() {
    let app = TestApp::start().await;
    let path = begin(&app, 100).await;
    for round in 0..10 {
        let racers = (0..4).map(|_| send(patch(&app, &path, round * 10, "0123456789")));
        let mut statuses: Vec<u16> = join_all(racers)
            .await
            .iter()
            .map(|response| response.status().as_u16())
            .collect();
        statuses.sort_unstable();
        let expected = [204, 409, 409, 409];
        // Repeating the last chunk of a complete upload is a late retry, not a race.
        assert_eq!(statuses, expected, "round {round}");
    }
    assert_eq!(
        stored(&app, &path).await,
        "0123456789".repeat(10).as_bytes()
    );
}

#[tokio::test]
async fn more_than_the_length_is_rejected_and_discarded() {
    let app = TestApp::start().await;
    let path = begin(&app, 5).await;
    answered(&send(patch(&app, &path, 0, "hello world")).await, 413);
    assert_eq!(offset(&app, &path).await, 0);
    let chunks = futures::stream::iter(["hel", "lo wo", "rld"].map(Ok::<_, std::io::Error>));
    let body = reqwest::Body::wrap_stream(chunks);
    answered(&send(patch(&app, &path, 0, body)).await, 413);
    assert_eq!(offset(&app, &path).await, 5);
    assert_eq!(stored(&app, &path).await, b"hello");
}

#[tokio::test]
async fn deferred_length_is_set_once_on_a_patch() {
    let app = TestApp::start().await;
    let post = tus(&app, "POST", "/v1/tus").header("Upload-Defer-Length", 1);
    let response = send(post).await;
    answered(&response, 201);
    let path = header(&response, "location").unwrap();
    let response = send(tus(&app, "HEAD", path)).await;
    assert_eq!(header(&response, "upload-defer-length"), Some("1"));
    assert!(header(&response, "upload-length").is_none());
    answered(&send(patch(&app, path, 0, "hello")).await, 204);
    let with = |length| patch(&app, path, 5, "").header("Upload-Length", length);
    answered(&send(with(4)).await, 400);
    answered(&send(with(10)).await, 204);
    for again in [10, 11] {
        answered(&send(with(again)).await, 400);
    }
    let response = send(tus(&app, "HEAD", path)).await;
    assert_eq!(header(&response, "upload-length"), Some("10"));
    assert!(header(&response, "upload-defer-length").is_none());
    answered(&send(patch(&app, path, 5, "world")).await, 204);
    assert_eq!(stored(&app, path).await, b"helloworld");
}

#[tokio::test]
async fn length_that_is_the_offset_completes_the_upload() {
    let app = TestApp::start().await;
    let response = send(tus(&app, "POST", "/v1/tus").header("Upload-Defer-Length", 1)).await;
    let path = header(&response, "location").unwrap();
    answered(&send(patch(&app, path, 0, "hello")).await, 204);
    let response = send(patch(&app, path, 5, "").header("Upload-Length", 5)).await;
    answered(&response, 204);
    assert!(header(&response, "landfall-file").is_some());
    assert_eq!(stored(&app, path).await, b"hello");
}

#[tokio::test]
async fn maximum_holds_for_bodies_of_unknown_length_too() {
    let app = TestApp::builder()
        .set("uploads.max_file_size", "1KiB")
        .start()
        .await;
    let response = send(tus(&app, "POST", "/v1/tus").header("Upload-Defer-Length", 1)).await;
    let path = header(&response, "location").unwrap();
    let chunks = futures::stream::iter(vec![vec![b'x'; 400]; 5]).map(Ok::<_, std::io::Error>);
    let body = reqwest::Body::wrap_stream(chunks);
    answered(&send(patch(&app, path, 0, body)).await, 413);
    assert!(offset(&app, path).await <= 1024);
    let too_long = patch(&app, path, 1024, "").header("Upload-Length", 1025);
    answered(&send(too_long).await, 413);
}

#[tokio::test]
async fn last_patch_may_be_repeated_if_its_response_was_lost() {
    let app = TestApp::start().await;
    let path = begin(&app, 5).await;
    answered(&send(patch(&app, &path, 0, "hello")).await, 204);
    answered(&send(patch(&app, &path, 0, "hello")).await, 409);
    let response = send(patch(&app, &path, 5, "")).await;
    answered(&response, 204);
    assert_eq!(header(&response, "upload-offset"), Some("5"));
}

#[tokio::test]
async fn surplus_is_rejected_after_completion_as_before() {
    let app = TestApp::start().await;
    let path = begin(&app, 5).await;
    answered(&send(patch(&app, &path, 0, "hello")).await, 204);
    answered(&send(patch(&app, &path, 5, "")).await, 204);
    answered(&send(patch(&app, &path, 5, "!")).await, 413);
    let chunked = reqwest::Body::wrap_stream(futures::stream::iter([Ok::<_, std::io::Error>("!")]));
    answered(&send(patch(&app, &path, 5, chunked)).await, 413);
    let wrong = patch(&app, &path, 5, "").header("Upload-Checksum", "crc32 NhCmhg==");
    answered(&send(wrong).await, 460);
    let of_nothing = patch(&app, &path, 5, "").header("Upload-Checksum", "crc32 AAAAAA==");
    answered(&send(of_nothing).await, 204);
    let behind = send(patch(&app, &path, 2, "llo")).await;
    answered(&behind, 409);
    assert_eq!(header(&behind, "upload-offset"), Some("5"));
    assert_eq!(super::stored(&app, &path).await, b"hello");
}
