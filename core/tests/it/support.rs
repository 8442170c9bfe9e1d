//! The backends under test, each with its own folder or bucket.

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use landfall_core::{
    config::{self, Backend, BucketAddressing, ByteSize, S3Settings},
    staging::{Staging, StagingKey, WriteOptions},
    storage::{MemoryStore, S3Timeouts, Storage, StorageKey},
    transfer::{Piece, TransferRequest},
};
use landfall_test_servers::S3Server;
use std::{convert::Infallible, io, path::Path, sync::Arc, time::Duration};
use tempfile::TempDir;

pub(crate) const BUCKET: &str = "landfall";
pub(crate) const MIB: usize = 1024 * 1024;

/// Staging and storage of one test.
pub(crate) struct Place {
    pub(crate) folder: TempDir,
    pub(crate) server: Option<S3Server>,
    pub(crate) staging: Staging,
    pub(crate) storage: Storage,
}

/// Runs each suite of a module over each backend.
macro_rules! over_every_backend {
    ($($test:ident),+ $(,)?) => {
        mod fs {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crate::support::fs().await).await;
            })+
        }
        mod s3 {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crate::support::any_bucket().await).await;
            })+
        }
    };
}
pub(crate) use over_every_backend;

/// [`over_every_backend`], and over storage in memory: the conformance suite of every
/// [`Store`](landfall_core::storage::Store).
macro_rules! over_every_store {
    ($($test:ident),+ $(,)?) => {
        crate::support::over_every_backend!($($test),+);
        mod memory {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crate::support::memory().await).await;
            })+
        }
    };
}
pub(crate) use over_every_store;

impl Place {
    /// The S3 server, if there is one.
    pub(crate) fn server(&self) -> &S3Server {
        self.server.as_ref().unwrap()
    }

    /// Stages a body under a new key.
    pub(crate) async fn stage(&self, bytes: &Bytes) -> Piece {
        let key = StagingKey::generate();
        let body = body(bytes.clone(), 100_000);
        let staged = self.staging.write(key, body, WriteOptions::default());
        let size = staged.await.unwrap().size;
        assert_eq!(size, bytes.len() as u64);
        Piece::new(key, size)
    }

    /// Removes at most `limit` unfinished writes that were started before `before`, and returns how many.
    pub(crate) async fn remove_unfinished(
        &self,
        before: chrono::DateTime<chrono::Utc>,
        limit: usize,
    ) -> usize {
        let pages: Vec<_> = self.storage.unfinished().try_collect().await.unwrap();
        let old = pages.into_iter().flatten().filter(|one| one.since < before);
        let old: Vec<_> = old.take(limit).collect();
        for one in &old {
            self.storage.remove_unfinished(one).await.unwrap();
        }
        old.len()
    }

    pub(crate) async fn stored(&self, key: &StorageKey) -> Bytes {
        let stream = self.storage.read(key, None).await.unwrap();
        let pieces: Vec<Bytes> = stream.try_collect().await.unwrap();
        pieces.concat().into()
    }

    pub(crate) async fn staged(&self, key: StagingKey, size: usize) -> Bytes {
        let stream = self.staging.read(key, 0..size as u64).await.unwrap();
        let pieces: Vec<Bytes> = stream.try_collect().await.unwrap();
        pieces.concat().into()
    }

    /// Puts an object as another program would.
    pub(crate) async fn plant(&self, key: &StorageKey, bytes: &Bytes) {
        let root = match &self.server {
            Some(server) => server.root().join(BUCKET),
            None => self.folder.path().join("storage"),
        };
        if root.exists() {
            let path = root.join(key.as_str());
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        } else {
            let put = self.storage.put_bytes(key, bytes.clone(), "text/plain");
            put.await.unwrap();
        }
    }

    /// Returns how many keys staging lists.
    pub(crate) async fn staged_keys(&self) -> usize {
        let pages: Vec<_> = self.staging.list().try_collect().await.unwrap();
        pages.iter().map(Vec::len).sum()
    }

    /// Returns the keys that storage lists, in order.
    pub(crate) async fn stored_keys(&self, prefix: &str) -> Vec<String> {
        let pages: Vec<_> = self.storage.list(prefix).try_collect().await.unwrap();
        assert!(pages.iter().all(|page| page.len() <= 1000));
        let mut keys: Vec<String> = pages
            .concat()
            .into_iter()
            .map(|object| object.key)
            .collect();
        keys.sort_unstable();
        keys
    }
}

pub(crate) fn request<'a>(pieces: &'a [Piece], key: &'a StorageKey) -> TransferRequest<'a> {
    TransferRequest {
        pieces,
        key,
        content_type: "application/octet-stream",
        expected: None,
        known: None,
        rehash: false,
        overwrite: false,
    }
}

pub(crate) fn storage_config(path: &Path) -> config::StorageConfig {
    config::StorageConfig {
        backend: Backend::Fs,
        path: path.join("storage"),
        prefix: String::new(),
        s3: S3Settings {
            bucket_name: BUCKET.to_owned(),
            endpoint_url: None,
            region_name: "us-east-1".to_owned(),
            access_key_id: String::new(),
            secret_access_key: String::new().into(),
            session_token: None,
            querystring_auth: true,
            querystring_expire: 3600,
            file_overwrite: false,
            addressing: BucketAddressing::Auto,
            public_url: None,
            server_side_encryption: None,
            kms_key_id: None,
            storage_class: None,
        },
    }
}

pub(crate) fn staging_config(path: &Path) -> config::StagingConfig {
    config::StagingConfig {
        backend: Backend::Fs,
        path: path.join("staging"),
        quota: None,
        min_free: ByteSize(0),
        direct_io: true,
        grace: Duration::from_secs(60),
    }
}

/// Staging and storage in one folder.
pub(crate) async fn fs() -> Place {
    let folder = TempDir::new().unwrap();
    let storage = storage_config(folder.path());
    let staging = staging_config(folder.path());
    open(folder, None, &storage, &staging).await
}

/// Staging and storage in one bucket.
pub(crate) async fn s3() -> Place {
    let folder = TempDir::new().unwrap();
    let server = S3Server::start().await;
    server.create_bucket(BUCKET);
    let storage = s3_config(folder.path(), &server);
    let staging = config::StagingConfig {
        backend: Backend::S3,
        ..staging_config(folder.path())
    };
    open(folder, Some(server), &storage, &staging).await
}

/// Staging and storage in one bucket: of the store that the environment names, or of a server of the test.
pub(crate) async fn any_bucket() -> Place {
    let Some(url) = variable("URL") else {
        return s3().await;
    };
    let folder = TempDir::new().unwrap();
    let (storage, staging) = named_store(folder.path(), &url);
    let staging = config::StagingConfig {
        backend: Backend::S3,
        ..staging
    };
    open(folder, None, &storage, &staging).await
}

/// Staging in a folder, storage in a bucket as [`any_bucket`].
pub(crate) async fn fs_to_any_bucket() -> Place {
    let Some(url) = variable("URL") else {
        return fs_to_s3().await;
    };
    let folder = TempDir::new().unwrap();
    let (storage, staging) = named_store(folder.path(), &url);
    open(folder, None, &storage, &staging).await
}

fn variable(name: &str) -> Option<String> {
    std::env::var(format!("LANDFALL_TEST_S3_{name}"))
        .ok()
        .filter(|value| !value.is_empty())
}

/// The configuration of a store that was not started by the test. Each test has a prefix of its own.
fn named_store(path: &Path, url: &str) -> (config::StorageConfig, config::StagingConfig) {
    let required = |name| {
        variable(name).unwrap_or_else(|| {
            panic!("LANDFALL_TEST_S3_URL is set, so LANDFALL_TEST_S3_{name} must be set as well")
        })
    };
    let mut storage = storage_config(path);
    storage.backend = Backend::S3;
    storage.prefix = format!("landfall-test/{}", uuid::Uuid::now_v7());
    storage.s3.endpoint_url = Some(url.parse().unwrap());
    storage.s3.bucket_name = required("BUCKET");
    storage.s3.access_key_id = required("ACCESS_KEY_ID");
    storage.s3.secret_access_key = required("SECRET_ACCESS_KEY").into();
    if let Some(region) = variable("REGION") {
        storage.s3.region_name = region;
    }
    (storage, staging_config(path))
}

/// Staging in a folder, storage in memory.
pub(crate) async fn memory() -> Place {
    let folder = TempDir::new().unwrap();
    let storage = Storage::new(Arc::new(MemoryStore::default()));
    let staging = staging_config(folder.path());
    let staging = Staging::open(&staging, &storage).await.unwrap();
    Place {
        folder,
        server: None,
        staging,
        storage,
    }
}

/// Staging in a folder, storage in a bucket.
pub(crate) async fn fs_to_s3() -> Place {
    let folder = TempDir::new().unwrap();
    let server = S3Server::start().await;
    server.create_bucket(BUCKET);
    let storage = s3_config(folder.path(), &server);
    let staging = staging_config(folder.path());
    open(folder, Some(server), &storage, &staging).await
}

async fn open(
    folder: TempDir,
    server: Option<S3Server>,
    storage: &config::StorageConfig,
    staging: &config::StagingConfig,
) -> Place {
    let storage = Storage::open_with_timeouts(storage, short_timeouts())
        .await
        .unwrap();
    let staging = Staging::open(staging, &storage).await.unwrap();
    Place {
        folder,
        server,
        staging,
        storage,
    }
}

/// Short enough to see a hang end, long enough for a loaded machine.
pub(crate) fn short_timeouts() -> S3Timeouts {
    S3Timeouts {
        connect: Duration::from_secs(2),
        answer: Duration::from_secs(8),
        stall: Duration::from_secs(8),
        slowest: 8 * MIB as u64,
    }
}

pub(crate) fn s3_config(path: &Path, server: &S3Server) -> config::StorageConfig {
    let mut config = storage_config(path);
    config.backend = Backend::S3;
    config.s3.endpoint_url = Some(server.endpoint().parse().unwrap());
    config.s3.access_key_id = server.access_key().to_owned();
    config.s3.secret_access_key = server.secret_key().into();
    config
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

/// A body that is interrupted after its bytes.
pub(crate) fn broken(bytes: Bytes) -> impl Stream<Item = Result<Bytes, io::Error>> + Send {
    body(bytes, 10_000)
        .map(|piece| Ok(piece.unwrap()))
        .chain(stream::iter([Err(io::ErrorKind::ConnectionReset.into())]))
}

/// Bytes that differ by position and by seed.
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

/// Waits until `holds`, for at most ten seconds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
