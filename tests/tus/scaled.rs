//! The same over PostgreSQL and S3, for staging and for storage.

use super::{answered, begin, begin_with, header, patch, send, stored, tus};
use crate::support::TestApp;
use landfall_test_servers::S3Server;

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
async fn pieces_in_a_bucket_make_the_file() {
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
async fn partials_in_a_bucket_are_joined() {
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
