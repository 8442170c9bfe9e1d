//! The same over PostgreSQL and S3, for staging and for storage.

use super::{SOON, answered, begin, begin_with, header, patch, row, send, stored, tus};
use crate::support::TestApp;
use entity::file::FileStatus;
use landfall_core::digest::Sha256Digest;
use landfall_test_servers::{S3Operation, S3Server, wait_until};

async fn scaled(s3: &S3Server) -> TestApp {
    TestApp::builder()
        .postgres()
        .s3(s3)
        .set("staging.backend", "s3")
        .start()
        .await
}

fn bytes(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at % 251) as u8).collect()
}

#[tokio::test]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn chunks_in_a_bucket_become_the_file() {
    let s3 = S3Server::start().await;
    let app = scaled(&s3).await;
    let bytes = bytes(10_000_000);
    let path = begin(&app, bytes.len()).await;
    let (first, second) = bytes.split_at(9_000_000);
    answered(&send(patch(&app, &path, 0, first.to_vec())).await, 204);
    answered(&send(patch(&app, &path, 0, first.to_vec())).await, 409);
    answered(
        &send(patch(&app, &path, first.len(), second.to_vec())).await,
        204,
    );
    let response = send(tus(&app, "GET", &path)).await;
    answered(&response, 200);
    assert!(response.bytes().await.unwrap() == bytes);
    assert!(stored(&app, &path).await == bytes);
}

#[tokio::test]
async fn bytes_moved_during_a_download_arrive_complete() {
    let s3 = S3Server::start().await;
    let app = TestApp::builder()
        .s3(&s3)
        .set("staging.backend", "s3")
        .workers(&[])
        .start()
        .await;
    let bytes = bytes(40 * 1024 * 1024);
    let path = begin(&app, bytes.len()).await;
    answered(&send(patch(&app, &path, 0, bytes.clone())).await, 204);
    let mut response = send(tus(&app, "GET", &path)).await;
    answered(&response, 200);
    let mut read = response.chunk().await.unwrap().unwrap().to_vec();
    let file = row(&app, &path).await.id;
    landfall_core::finalize::Finalizer::new(&app.parts.app, "by hand")
        .finalize(file)
        .await
        .unwrap();
    while let Some(chunk) = response.chunk().await.unwrap() {
        read.extend_from_slice(&chunk);
    }
    assert!(read == bytes);
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn upload_hashed_on_arrival_is_not_read_again() {
    let s3 = S3Server::start().await;
    let app = scaled(&s3).await;
    let bytes = bytes(48 * 1024 * 1024);
    let path = begin(&app, bytes.len()).await;
    // Whole segments, as copies within the bucket need.
    for (number, piece) in bytes.chunks(16 * 1024 * 1024).enumerate() {
        let at = number * 16 * 1024 * 1024;
        answered(&send(patch(&app, &path, at, piece.to_vec())).await, 204);
    }
    wait_until(SOON, async || {
        (row(&app, &path).await.status == FileStatus::Stored).then_some(())
    })
    .await;
    // The one read is of the first bytes, to see what they are.
    assert_eq!(s3.calls(S3Operation::GetObject), 1);
    let sha256 = Sha256Digest::compute(&bytes).to_string();
    assert_eq!(row(&app, &path).await.sha256, Some(sha256));
    assert!(stored(&app, &path).await == bytes);
}

#[tokio::test]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn partials_in_a_bucket_are_concatenated() {
    let s3 = S3Server::start().await;
    let app = scaled(&s3).await;
    let bytes = bytes(3_000_000);
    let mut list = String::from("final;");
    for piece in bytes.chunks(1_100_000) {
        let path = begin_with(&app, piece.len(), &[("Upload-Concat", "partial")]).await;
        answered(&send(patch(&app, &path, 0, piece.to_vec())).await, 204);
        list = format!("{list}{path} ");
    }
    let response =
        send(tus(&app, "POST", "/v1/tus").header("Upload-Concat", list.trim_end())).await;
    answered(&response, 201);
    assert!(stored(&app, header(&response, "location").unwrap()).await == bytes);
}
