use super::{OFFSET_STREAM, answered, begin, header, offset, patch, send, stored, tus};
use crate::support::TestApp;

/// Of `hello`, by the programs of GNU coreutils and `crc32`.
const DIGESTS: [&str; 4] = [
    "sha1 qvTGHdzF6KLavt4PO0gs2a6pQ00=",
    "sha256 LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=",
    "md5 XUFAKrxLKna5cZ2REBfFkg==",
    "crc32 NhCmhg==",
];

#[tokio::test]
async fn matching_checksums_of_all_algorithms_are_accepted() {
    let app = TestApp::start().await;
    for digest in DIGESTS {
        let path = begin(&app, 5).await;
        let request = patch(&app, &path, 0, "hello").header("Upload-Checksum", digest);
        let response = send(request).await;
        answered(&response, 204);
        assert_eq!(stored(&app, &path).await, b"hello", "{digest}");
    }
}

#[tokio::test]
async fn mismatch_is_460_and_the_chunk_is_discarded() {
    let app = TestApp::start().await;
    for digest in DIGESTS {
        let path = begin(&app, 10).await;
        answered(&send(patch(&app, &path, 0, "01234")).await, 204);
        let request = patch(&app, &path, 5, "hellO").header("Upload-Checksum", digest);
        answered(&send(request).await, 460);
        assert_eq!(offset(&app, &path).await, 5, "{digest}");
        let request = patch(&app, &path, 5, "hello").header("Upload-Checksum", digest);
        answered(&send(request).await, 204);
        assert_eq!(stored(&app, &path).await, b"01234hello");
    }
}

#[tokio::test]
async fn unknown_algorithms_and_malformed_digests_are_rejected() {
    let app = TestApp::start().await;
    let path = begin(&app, 5).await;
    for (wrong, status) in [
        ("sha512 AAAA", 400),
        ("sha1", 400),
        ("sha1 !!!", 400),
        ("md5 AAAA", 460),
        ("sha1 XUFAKrxLKna5cZ2REBfFkg==", 460),
        ("", 400),
    ] {
        let request = patch(&app, &path, 0, "hello").header("Upload-Checksum", wrong);
        answered(&send(request).await, status);
    }
    assert_eq!(offset(&app, &path).await, 0);
}

#[tokio::test]
async fn bytes_of_a_creation_are_checked_too() {
    let app = TestApp::start().await;
    let post = |digest: &str| {
        tus(&app, "POST", "/v1/tus")
            .header("Upload-Length", 5)
            .header("Content-Type", OFFSET_STREAM)
            .header("Upload-Checksum", digest)
            .body("hello")
    };
    answered(&send(post("crc32 AAAAAA==")).await, 460);
    let response = send(post(DIGESTS[3])).await;
    answered(&response, 201);
    assert_eq!(header(&response, "upload-offset"), Some("5"));
}
