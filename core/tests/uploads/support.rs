//! An installation per test, without HTTP and without workers.

use bytes::Bytes;
use entity::{
    FileId, UploadId,
    file::{self, FileStatus},
    upload::Model,
};
use futures::{StreamExt, TryStreamExt, future::BoxFuture, stream};
use landfall_core::{
    app::App,
    clock::Clock,
    config::{Config, ConfigSources},
    db::Database,
    digest::Sha256Digest,
    enqueue::{DueDelivery, JobSink},
    files::{FileIntake, FileName, OwnerScope},
    finalize::{FinalizeOutcome, Finalizer},
    staging::{Staging, StagingKey},
    storage::Storage,
    uploads::{self, Append, NewUpload, UploadBytes, UploadError, UploadShape, UploadWrites},
};
use landfall_test_servers::PostgresServer;
use sea_orm::EntityTrait;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{sync::mpsc, time::Instant};

/// Timeout for anything a test waits for.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) struct Place {
    pub(crate) app: App,
    pub(crate) recorded: Arc<RecordedJobs>,
    _folder: TempDir,
}

/// Runs each test over SQLite and over PostgreSQL.
#[macro_export]
macro_rules! over_both_databases {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::support::Place::sqlite().await).await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name($crate::support::Place::postgres().await).await;
            })+
        }
    };
}

impl Place {
    pub(crate) async fn sqlite() -> Self {
        Self::over(None).await
    }

    pub(crate) async fn postgres() -> Self {
        let server = tokio::task::spawn_blocking(PostgresServer::shared)
            .await
            .unwrap();
        Self::over(Some(server.create_database().await)).await
    }

    async fn over(database: Option<String>) -> Self {
        let folder = TempDir::new().unwrap();
        let mut environment = vec![
            (
                "LANDFALL__DATA_DIR".to_owned(),
                folder.path().display().to_string(),
            ),
            ("LANDFALL__STAGING__MIN_FREE".to_owned(), "0B".to_owned()),
        ];
        environment.extend(database.map(|url| ("LANDFALL__DATABASE__URL".to_owned(), url)));
        let sources = ConfigSources {
            file: None,
            environment,
        };
        let config = Config::load(sources).unwrap();
        let db = Database::open(&config.database.url, 8).await.unwrap();
        db.migrate_up().await.unwrap();
        let storage = Storage::open(&config.storage).await.unwrap();
        let recorded = Arc::new(RecordedJobs::default());
        let clock = Clock::system();
        Self {
            app: App {
                intake: FileIntake::start(&db),
                uploads: UploadWrites::start(&db, &clock),
                clock,
                db,
                staging: Staging::open(&config.staging, &storage).await.unwrap(),
                storage,
                dispatch: Arc::clone(&recorded) as Arc<dyn JobSink>,
                public_url: "http://files.example".parse().unwrap(),
                config: Arc::new(config),
            },
            recorded,
            _folder: folder,
        }
    }

    /// Changes a setting for the rest of the test.
    pub(crate) fn configure(&mut self, change: impl FnOnce(&mut Config)) {
        let mut config = (*self.app.config).clone();
        change(&mut config);
        self.app.config = Arc::new(config);
    }

    pub(crate) async fn begin(&self, shape: UploadShape) -> Model {
        uploads::create(&self.app, shape, new_upload(), None)
            .await
            .unwrap()
    }

    pub(crate) async fn append(
        &self,
        id: UploadId,
        request: Append,
        body: UploadBytes,
    ) -> Result<Model, UploadError> {
        uploads::append(&self.app, &OwnerScope::All, id, request, body).await
    }

    pub(crate) async fn append_at(
        &self,
        id: UploadId,
        offset: u64,
        bytes: Bytes,
    ) -> Result<Model, UploadError> {
        self.append(id, at(offset), body(bytes)).await
    }

    pub(crate) async fn upload(&self, id: UploadId) -> Model {
        uploads::get(self.app.db.read(), &OwnerScope::All, id)
            .await
            .unwrap()
    }

    pub(crate) async fn offset(&self, id: UploadId) -> u64 {
        self.upload(id).await.bytes_received.unsigned_abs()
    }

    pub(crate) async fn file(&self, id: FileId) -> file::Model {
        let found = file::Entity::find_by_id(id).one(self.app.db.read()).await;
        found.unwrap().unwrap()
    }

    /// Returns the staged keys of an upload, counted or not.
    pub(crate) async fn keys(&self, id: UploadId) -> Vec<StagingKey> {
        let pages: Vec<_> = self.app.staging.list().try_collect().await.unwrap();
        let keys = pages.concat().into_iter().map(|staged| staged.key);
        keys.filter(|key| key.owner() == id.0).collect()
    }

    /// Returns the number of these bytes; `None` if there are none.
    pub(crate) async fn durable(&self, id: UploadId) -> Option<u64> {
        let mut sum = None;
        for key in self.keys(id).await {
            let length = self.app.staging.len(key).await.unwrap();
            sum = Some(sum.unwrap_or(0) + length.unwrap());
        }
        sum
    }

    /// Returns the counted bytes, as read from staging.
    pub(crate) async fn staged(&self, id: UploadId) -> Bytes {
        let pieces = uploads::pieces(self.app.db.read(), id).await.unwrap();
        collect(self.app.staging.read_pieces(&pieces).await.unwrap()).await
    }

    /// The same installation, seen by another process.
    pub(crate) fn another_process(&self) -> App {
        App {
            uploads: UploadWrites::start(&self.app.db, &self.app.clock),
            ..self.app.clone()
        }
    }

    /// Transfers a staged file to storage and returns its bytes.
    pub(crate) async fn transfer(&self, id: FileId) -> Bytes {
        let outcome = Finalizer::new(&self.app, "worker")
            .finalize(id)
            .await
            .unwrap();
        let file = self.file(id).await;
        assert_eq!(outcome, FinalizeOutcome::Stored, "{file:?}");
        assert_eq!(file.status, FileStatus::Stored);
        let key = file.storage_key.unwrap().parse().unwrap();
        let bytes = collect(self.app.storage.read(&key, None).await.unwrap()).await;
        assert_eq!(file.sha256, Some(Sha256Digest::compute(&bytes).to_string()));
        bytes
    }

    /// Waits until the upload is at an offset.
    pub(crate) async fn until_offset(&self, id: UploadId, offset: u64) {
        let until = Instant::now() + SOON;
        loop {
            let now = self.offset(id).await;
            if now == offset {
                return;
            }
            assert!(Instant::now() < until, "the offset is {now}, not {offset}");
            tokio::task::yield_now().await;
        }
    }
}

async fn collect<E: std::fmt::Debug>(
    bytes: impl futures::Stream<Item = Result<Bytes, E>>,
) -> Bytes {
    let pieces: Vec<Bytes> = bytes.try_collect().await.unwrap();
    pieces.concat().into()
}

pub(crate) fn new_upload() -> NewUpload {
    NewUpload {
        owner: None,
        original_filename: FileName::parse("Straße.bin").unwrap(),
        content_type: "application/octet-stream".to_owned(),
        declared_sha256: None,
        metadata: serde_json::json!({}),
        batch_id: None,
        expires_in: None,
        traceparent: None,
        tus_metadata: None,
        tus_concat: None,
        link: None,
    }
}

pub(crate) fn at(offset: u64) -> Append {
    Append {
        offset,
        ..Append::default()
    }
}

/// A body in pieces of up to 100,000 bytes.
pub(crate) fn body(bytes: Bytes) -> UploadBytes {
    const PIECE: usize = 100_000;
    let pieces: Vec<_> = (0..bytes.len())
        .step_by(PIECE)
        .map(|from| Ok(bytes.slice(from..bytes.len().min(from + PIECE))))
        .collect();
    stream::iter(pieces).boxed()
}

/// A body that lasts as long as its sender, and the sender.
pub(crate) fn open_body() -> (mpsc::UnboundedSender<Bytes>, UploadBytes) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let stream = stream::unfold(receiver, |mut receiver| async move {
        let bytes: Bytes = receiver.recv().await?;
        Some((Ok(bytes), receiver))
    });
    (sender, stream.boxed())
}

/// A body that is interrupted after these bytes.
pub(crate) fn broken_body(bytes: Bytes) -> UploadBytes {
    body(bytes)
        .chain(stream::iter([Err("connection reset".into())]))
        .boxed()
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

/// Records the jobs that were pushed.
#[derive(Debug, Default)]
pub(crate) struct RecordedJobs {
    finalize: Mutex<Vec<FileId>>,
    settled: Mutex<Vec<FileId>>,
}

impl RecordedJobs {
    pub(crate) fn finalize(&self) -> Vec<FileId> {
        taken(&self.finalize)
    }

    pub(crate) fn settled(&self) -> Vec<FileId> {
        taken(&self.settled)
    }
}

fn taken(list: &Mutex<Vec<FileId>>) -> Vec<FileId> {
    list.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn add(list: &Mutex<Vec<FileId>>, files: &[FileId]) {
    list.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .extend(files);
}

impl JobSink for RecordedJobs {
    fn finalize<'a>(&'a self, files: &'a [FileId]) -> BoxFuture<'a, ()> {
        add(&self.finalize, files);
        Box::pin(async {})
    }

    fn deliver<'a>(&'a self, _: &'a [DueDelivery]) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }

    fn purge<'a>(&'a self, _: &'a [FileId]) -> BoxFuture<'a, ()> {
        Box::pin(async {})
    }

    fn settled(&self, file: FileId) -> BoxFuture<'_, ()> {
        add(&self.settled, &[file]);
        Box::pin(async {})
    }
}
