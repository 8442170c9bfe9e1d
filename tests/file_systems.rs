//! File systems that lack what most have: hard links, or the sync of a folder.

use crate::support::{Installation, Process, app::SOON};
use landfall_core::digest::Sha256Digest;
use landfall_test_servers::{limited_fs_shim, wait_until};
use reqwest::{Client, StatusCode};
use serde_json::Value;

/// What the file system does not support, and how often the log must say so.
async fn stores_files_without(refused: &str, warnings: usize) {
    let mut installation = Installation::new();
    let shim = limited_fs_shim().to_str().expect("a path in UTF-8");
    installation.set_raw("LD_PRELOAD", shim);
    installation.set_raw("LANDFALL_SHIM_REFUSE", refused);
    let log = installation.folder().join("log");
    let server = Process::logging_to(&log, &["up"], &installation.environment()).await;
    // As the command line does: reqwest is built without a provider of its own.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::new();

    let small = vec![b'a'; 1000];
    let large: Vec<u8> = (0..10_000_000_u32).map(|at| (at % 251) as u8).collect();
    let files = [
        post(&client, &server, small.clone()).await,
        post(&client, &server, large.clone()).await,
        append(&client, &server, &[&small]).await,
        append(
            &client,
            &server,
            &[&large[..6_000_000], &large[6_000_000..]],
        )
        .await,
    ];
    for (id, sent) in files.iter().zip([&small, &large, &small, &large]) {
        wait_until(SOON, async || {
            let url = format!("{}/v1/files/{id}", server.url);
            let response = client.get(url).send().await.expect("a response");
            let file: Value = response.json().await.expect("JSON");
            match file["status"] == "stored" {
                true => Ok(()),
                false => Err(file.to_string()),
            }
        })
        .await;
        let url = format!("{}/v1/files/{id}/content", server.url);
        let response = client.get(url).send().await.expect("a response");
        let content = response.bytes().await.expect("a whole body");
        assert_eq!(Sha256Digest::compute(&content), Sha256Digest::compute(sent));
    }
    let log = std::fs::read_to_string(log).expect("the log is text");
    let told = log
        .lines()
        .filter(|line| line.contains("cannot sync folders"));
    assert_eq!(told.count(), warnings, "{log}");
}

async fn post(client: &Client, server: &Process, bytes: Vec<u8>) -> String {
    let url = format!("{}/v1/files?filename=a.bin", server.url);
    let response = client
        .post(url)
        .body(bytes)
        .send()
        .await
        .expect("a response");
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let file: Value = response.json().await.expect("JSON");
    file["id"].as_str().expect("an id").to_owned()
}

/// Sends the pieces to a tus upload, each in a request of its own.
async fn append(client: &Client, server: &Process, pieces: &[&[u8]]) -> String {
    let length: usize = pieces.iter().map(|piece| piece.len()).sum();
    let created = client
        .post(format!("{}/v1/tus", server.url))
        .header("Tus-Resumable", "1.0.0")
        .header("Upload-Length", length)
        .header("Upload-Metadata", "filename YS5iaW4=")
        .send()
        .await
        .expect("a response");
    assert_eq!(created.status(), StatusCode::CREATED);
    let location = created.headers()["location"].to_str().expect("text");
    let (id, mut offset) = (location.rsplit('/').next().expect("an id").to_owned(), 0);
    for piece in pieces {
        let appended = client
            .patch(format!("{}/v1/tus/{id}", server.url))
            .header("Tus-Resumable", "1.0.0")
            .header("Upload-Offset", offset)
            .header("Content-Type", "application/offset+octet-stream")
            .body(piece.to_vec())
            .send()
            .await
            .expect("a response");
        assert_eq!(appended.status(), StatusCode::NO_CONTENT);
        offset += piece.len();
    }
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn without_hard_links_files_are_copied() {
    stores_files_without("link", 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_sync_of_folders_files_are_stored_with_one_warning() {
    stores_files_without("folder-sync", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_either_files_are_stored() {
    stores_files_without("link,folder-sync", 1).await;
}
