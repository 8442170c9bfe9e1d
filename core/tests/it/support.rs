//! Backends to test, each in a place of its own.

use bytes::Bytes;
use futures::{Stream, TryStreamExt, stream};
use landfall_core::{
    config::{self, Backend, ByteSize, S3Settings},
    staging::{Staging, StagingKey},
    storage::Storage,
};
use std::{convert::Infallible, path::Path};
use tempfile::TempDir;

/// Staging and storage in one temporary folder.
pub(crate) struct Place {
    pub(crate) folder: TempDir,
    pub(crate) staging: Staging,
    pub(crate) storage: Storage,
}

pub(crate) fn storage_config(path: &Path) -> config::Storage {
    config::Storage {
        backend: Backend::Fs,
        path: path.join("storage"),
        s3: S3Settings {
            bucket_name: String::new(),
            endpoint_url: None,
            region_name: String::new(),
            access_key_id: String::new(),
            secret_access_key: String::new().into(),
            querystring_auth: true,
            querystring_expire: 3600,
            file_overwrite: false,
        },
    }
}

pub(crate) fn staging_config(path: &Path) -> config::Staging {
    config::Staging {
        backend: Backend::Fs,
        path: path.join("staging"),
        quota: None,
        min_free: ByteSize(0),
        grace: std::time::Duration::from_secs(60),
    }
}

pub(crate) async fn fs() -> Place {
    let folder = TempDir::new().unwrap();
    let storage = Storage::open(&storage_config(folder.path())).await.unwrap();
    let staging = Staging::open(&staging_config(folder.path()), &storage)
        .await
        .unwrap();
    Place {
        folder,
        staging,
        storage,
    }
}

/// A body in pieces of at most `piece` bytes.
pub(crate) fn body(
    bytes: Bytes,
    piece: usize,
) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    stream::iter(
        (0..bytes.len())
            .step_by(piece)
            .map(move |at| Ok(bytes.slice(at..bytes.len().min(at + piece))))
            .collect::<Vec<_>>(),
    )
}

/// Bytes that differ from place to place, and by seed.
pub(crate) fn noise(size: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes.into()
}

pub(crate) async fn stored(storage: &Storage, key: &str) -> Bytes {
    let key = key.parse().unwrap();
    let stream = storage.read(&key, None).await.unwrap();
    let pieces: Vec<Bytes> = stream.try_collect().await.unwrap();
    pieces.concat().into()
}

pub(crate) async fn staged(staging: &Staging, key: StagingKey, size: u64) -> Bytes {
    let stream = staging.read(key, 0..size).await.unwrap();
    let pieces: Vec<Bytes> = stream.try_collect().await.unwrap();
    pieces.concat().into()
}
