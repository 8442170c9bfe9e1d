//! `storage.prefix`: an installation below a folder of the storage folder or bucket.

use crate::support::{self, BUCKET, noise, short_timeouts};
use futures::TryStreamExt;
use landfall_core::{
    config::{self, Backend},
    staging::{Staging, StagingKey, WriteOptions},
    storage::{Storage, StorageKey, UrlOptions},
    transfer::{Piece, transfer},
};
use landfall_test_servers::S3Server;
use tempfile::TempDir;

const PREFIX: &str = "team a/files";

fn key(text: &str) -> StorageKey {
    text.parse().unwrap()
}

async fn keys(storage: &Storage, prefix: &str) -> Vec<String> {
    let pages: Vec<_> = storage.list(prefix).try_collect().await.unwrap();
    let mut keys: Vec<_> = pages.concat().into_iter().map(|one| one.key).collect();
    keys.sort_unstable();
    keys
}

async fn open(config: &config::StorageConfig) -> Storage {
    Storage::open_with_timeouts(config, short_timeouts())
        .await
        .unwrap()
}

/// Uses every operation, beside another installation without a prefix.
async fn is_respected(with: &Storage, without: &Storage) {
    without
        .put_bytes(&key("uploads/a"), noise(5, 1), "text/plain")
        .await
        .unwrap();
    with.put_bytes(&key("uploads/a"), noise(9, 2), "text/plain")
        .await
        .unwrap();
    let info = with.head(&key("uploads/a")).await.unwrap().unwrap();
    assert_eq!(info.size, 9);
    let bytes = with.read(&key("uploads/a"), None).await.unwrap();
    let bytes: Vec<_> = bytes.try_collect().await.unwrap();
    assert_eq!(bytes.concat(), noise(9, 2));
    for prefix in ["", "uploads/"] {
        assert_eq!(keys(with, prefix).await, ["uploads/a"]);
    }
    assert_eq!(keys(without, "uploads/").await, ["uploads/a"]);
    let below = format!("{PREFIX}/uploads/a");
    assert!(keys(without, "").await.contains(&below));
    with.probe().await.unwrap();
    with.health().await.unwrap();
    with.delete(&key("uploads/a")).await.unwrap();
    assert_eq!(with.head(&key("uploads/a")).await.unwrap(), None);
    assert_eq!(keys(without, "").await, ["uploads/a"]);
}

#[tokio::test]
async fn folder_keeps_everything_below_the_prefix() {
    let folder = TempDir::new().unwrap();
    let plain = support::storage_config(folder.path());
    let mut prefixed = plain.clone();
    prefixed.prefix = PREFIX.to_owned();
    is_respected(&open(&prefixed).await, &open(&plain).await).await;
}

#[tokio::test]
async fn bucket_keeps_everything_below_the_prefix() {
    let (folder, server) = (TempDir::new().unwrap(), S3Server::start().await);
    server.create_bucket(BUCKET);
    let plain = support::s3_config(folder.path(), &server);
    let mut prefixed = plain.clone();
    prefixed.prefix = PREFIX.to_owned();
    let storage = open(&prefixed).await;
    is_respected(&storage, &open(&plain).await).await;

    let staging = config::StagingConfig {
        backend: Backend::S3,
        ..support::staging_config(folder.path())
    };
    let staging = Staging::open(&staging, &storage).await.unwrap();
    let bytes = noise(20_000_000, 3);
    let staged = StagingKey::generate();
    let body = support::body(bytes.clone(), 1_000_000);
    staging
        .write(staged, body, WriteOptions::default())
        .await
        .unwrap();
    assert!(
        server
            .keys(BUCKET)
            .iter()
            .all(|key| key == "uploads/a" || key.starts_with("team a/files/staging/"))
    );
    let pieces = [Piece::new(staged, bytes.len() as u64)];
    let large = key("uploads/large");
    transfer(&staging, &storage, &support::request(&pieces, &large))
        .await
        .unwrap();
    let stored = server.object(BUCKET, "team a/files/uploads/large");
    assert!(stored.unwrap() == bytes);
    let url = storage.url(&large, UrlOptions::default()).await.unwrap();
    let path = url.unwrap().path().to_owned();
    assert_eq!(path, format!("/{BUCKET}/team%20a/files/uploads/large"));

    let ours = server.leave_upload_open(BUCKET, "team a/files/uploads/b");
    let _ = server.leave_upload_open(BUCKET, "uploads/c");
    let open: Vec<_> = storage.unfinished().try_collect().await.unwrap();
    let open = open.concat();
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].id, ours);
    assert_eq!(open[0].key.as_deref(), Some("uploads/b"));
}
