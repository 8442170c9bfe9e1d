//! Staging, where bytes are kept between upload and finalize: a folder, or the storage bucket under `staging/`.
//!
//! Guarantees of both backends:
//! - Bytes that a call reports as staged are durable when it returns, and visible to every other process.
//! - A segment is written sequentially by a single writer. It is never overwritten, truncated or written by another
//!   writer, so the bytes that a row lists never change, whatever a writer does that outlived its lease.
//! - Memory use does not grow with the body. A body that fails leaves behind what the call says and nothing else.
//! - Deleting and reading are idempotent: [`crate::transfer`] never modifies staging.
//!
//! Staging does not decide which bytes count: the database lists the segments with their lengths. A segment may contain
//! more than the listed length; the rest is ignored. A call whose future is dropped stops soon after, and what it was
//! writing is not reported.

mod body;
mod capacity;
mod error;
pub(crate) mod fs;
pub(crate) mod hashes;
mod key;
mod piece;
mod probe;
pub(crate) mod s3;
mod write;

use crate::{
    config::{self, Backend},
    installation::Marker,
    storage::{Storage, StorageError, fs::FsStorage, s3::S3Storage},
};
use body::BoxBody;
use bytes::Bytes;
pub use capacity::StagingShortage;
pub use error::StagingError;
use fs::FsStaging;
use futures::{
    Stream, StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use hashes::Hasher;
pub use hashes::{ChecksumAlgorithm, Hashes};
pub use key::{InvalidStagingKey, SegmentWriter, StagingKey};
pub use piece::{ListedStaging, Piece};
pub use probe::{ProbeError, StagingProbe, live_hosts};
use s3::{PieceObjects, S3Staging};
use std::{error::Error, ops::Range, path::PathBuf, sync::Arc, time::Duration};
use uuid::Uuid;
pub use write::{AppendOutcome, Held, StagedBody, WriteOptions};

/// Timeout of a health check.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// The usage of staging, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StagingUsage {
    /// Total staged bytes, at most as old as requested.
    pub used: u64,
    /// Free space on the disk; `None` for a bucket.
    pub free: Option<u64>,
    pub quota: Option<u64>,
}

/// Staged bytes, in pieces of bounded size.
pub type StagingStream = BoxStream<'static, Result<Bytes, StagingError>>;
/// Everything that is staged, in pages of at most [`crate::storage::PAGE`].
pub type StagingPages = BoxStream<'static, Result<Vec<ListedStaging>, StagingError>>;

/// A handle on staging; clones share connections and state.
#[derive(Clone, Debug)]
pub struct Staging {
    pub(crate) backend: StagingBackend,
}

/// The two kinds of staging.
#[derive(Clone, Debug)]
pub(crate) enum StagingBackend {
    Fs(Arc<FsStaging>),
    S3(Arc<S3Staging>),
}

/// Awaits the same call on either backend. The future of an S3 request is large, so it is boxed to keep the futures of
/// callers with a folder small.
macro_rules! on {
    ($staging:expr, $backend:ident => $call:expr) => {
        match &$staging.backend {
            StagingBackend::Fs($backend) => $call.await,
            StagingBackend::S3($backend) => Box::pin($call).await,
        }
    };
}

fn boxed<'a, S, E>(body: S) -> BoxBody<'a>
where
    S: Stream<Item = Result<Bytes, E>> + Send + 'a,
    E: Into<Box<dyn Error + Send + Sync>> + 'a,
{
    body.map_err(Into::into).boxed()
}

/// Staging in a bucket cannot be combined with storage in a folder.
fn bucket_beside_folder() -> StorageError {
    StorageError::Setting {
        key: "staging.backend",
        environment: "LANDFALL__STAGING__BACKEND",
        problem: "`s3` only together with storage.backend = \"s3\"".to_owned(),
        source: None,
    }
}

impl Staging {
    /// Opens staging as configured; staging in a bucket uses the bucket of `storage`.
    ///
    /// # Errors
    /// [`StagingError::Io`] when the folder cannot be created, [`StagingError::Storage`] when staging is configured to
    /// be in a bucket and storage is not.
    pub async fn open(
        config: &config::StagingConfig,
        storage: &Storage,
    ) -> Result<Self, StagingError> {
        let backend = match config.backend {
            Backend::Fs => {
                // For a transfer to a bucket everything is read again.
                let direct_io = config.direct_io && storage.downcast::<FsStorage>().is_some();
                StagingBackend::Fs(Arc::new(FsStaging::open(config, direct_io).await?))
            }
            Backend::S3 => {
                let store = storage
                    .downcast::<S3Storage>()
                    .ok_or_else(|| StagingError::Storage(bucket_beside_folder()))?;
                StagingBackend::S3(Arc::new(S3Staging::new(store, config.quota)))
            }
        };
        Ok(Self { backend })
    }

    /// Stages a whole body under a new key. If it fails or is dropped, nothing is left behind.
    ///
    /// In a folder, an existing key is rejected; in a bucket this is not checked, because every writer has keys of its
    /// own.
    ///
    /// # Errors
    /// [`StagingError::TooLarge`], [`StagingError::Full`], [`StagingError::Body`], [`StagingError::Exists`], and errors
    /// of the folder or bucket.
    pub async fn write<S, E>(
        &self,
        key: StagingKey,
        body: S,
        options: WriteOptions<'_>,
    ) -> Result<StagedBody, StagingError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        on!(self, backend => backend.write(key, boxed(body), &options))
    }

    /// [`Self::write`] for a body that must have exactly `size` bytes.
    ///
    /// # Errors
    /// [`StagingError::WrongSize`], and those of [`Self::write`] except `TooLarge`.
    pub async fn write_exactly<S, E>(
        &self,
        key: StagingKey,
        size: u64,
        body: S,
        options: WriteOptions<'_>,
    ) -> Result<StagedBody, StagingError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let options = WriteOptions {
            limit: size,
            ..options
        };
        let expected = size;
        match self.write(key, body, options).await {
            Ok(staged) if staged.size == size => Ok(staged),
            Ok(staged) => {
                self.delete(&[key]).await?;
                let found = staged.size;
                Err(StagingError::WrongSize { expected, found })
            }
            Err(StagingError::TooLarge { .. }) => {
                let found = size + 1;
                Err(StagingError::WrongSize { expected, found })
            }
            Err(error) => Err(error),
        }
    }

    /// Rejects bodies of any size when staging is full.
    ///
    /// # Errors
    /// [`StagingError::Full`], and errors of the folder or bucket.
    pub async fn admit(&self) -> Result<(), StagingError> {
        on!(self, backend => backend.admit(&WriteOptions::default()))
    }

    /// Appends a body to a segment of `length` bytes, of which the caller must be the only writer; at 0 the segment is
    /// created, and must not exist. Everything before an error is kept and durable; an empty body creates nothing.
    ///
    /// To also keep the bytes received before a client disconnects, the call must run to completion: run it in a task
    /// of its own, and to interrupt it, end its body with an error instead of dropping it.
    ///
    /// # Errors
    /// [`StagingError::Gone`], [`StagingError::Exists`] and [`StagingError::WrongLength`] when the segment is not as
    /// the caller left it, and errors of the folder or bucket before anything was written. Later errors are returned in
    /// [`AppendOutcome::stopped`].
    pub async fn append<S, E>(
        &self,
        key: StagingKey,
        length: u64,
        body: S,
        options: WriteOptions<'_>,
    ) -> Result<AppendOutcome, StagingError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        on!(self, backend => backend.append(key, length, boxed(body), &options))
    }

    /// Hashes a body without storing it, and returns its size as well.
    ///
    /// # Errors
    /// [`StagingError::TooLarge`] and [`StagingError::Body`].
    pub async fn digest<S, E>(
        body: S,
        options: WriteOptions<'_>,
    ) -> Result<StagedBody, StagingError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        let hasher = Hasher::new(options.hashes, None);
        let (size, hashes) = body::digest(boxed(body), options.limit, hasher).await?;
        Ok(StagedBody { size, hashes })
    }

    /// Returns the number of bytes under a key, counted or not; `None` if there is no such key.
    ///
    /// # Errors
    /// Errors of the folder or bucket.
    pub async fn len(&self, key: StagingKey) -> Result<Option<u64>, StagingError> {
        on!(self, backend => backend.len(key))
    }

    /// Reads a range that is completely staged.
    ///
    /// # Errors
    /// [`StagingError::Gone`]. The stream ends with an error if the bytes end before the range does.
    pub async fn read(
        &self,
        key: StagingKey,
        range: Range<u64>,
    ) -> Result<StagingStream, StagingError> {
        on!(self, backend => backend.read(key, range))
    }

    /// Reads pieces, one after the other. Whether the first exists is checked before the stream starts.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn read_pieces(&self, pieces: &[Piece]) -> Result<StagingStream, StagingError> {
        match &self.backend {
            StagingBackend::Fs(backend) => {
                let (backend, mut pieces) = (Arc::clone(backend), Vec::from(pieces).into_iter());
                let first = match pieces.next() {
                    Some(first) => backend.read(first.key, first.range()).await?,
                    None => return Ok(stream::empty().boxed()),
                };
                let following = stream::iter(pieces)
                    .then(move |piece| {
                        let backend = Arc::clone(&backend);
                        async move { backend.read(piece.key, piece.range()).await }
                    })
                    .try_flatten();
                Ok(first.chain(following).boxed())
            }
            StagingBackend::S3(backend) => {
                Box::pin(PieceObjects::new(&backend.store, pieces).bytes()).await
            }
        }
    }

    /// Reads the first `size` bytes of a piece, which must have as many, into memory.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub(crate) async fn head(&self, piece: &Piece, size: u64) -> Result<Bytes, StagingError> {
        let range = piece.offset..piece.offset + size;
        match &self.backend {
            StagingBackend::Fs(backend) => backend.head(piece.key, range).await,
            StagingBackend::S3(backend) => {
                let pieces: Vec<Bytes> =
                    backend.read(piece.key, range).await?.try_collect().await?;
                Ok(pieces.concat().into())
            }
        }
    }

    /// Deletes the bytes under these keys. Deleting a missing key succeeds.
    ///
    /// # Errors
    /// Errors of the folder or bucket; keys deleted before the error stay deleted.
    pub async fn delete(&self, keys: &[StagingKey]) -> Result<(), StagingError> {
        on!(self, backend => backend.delete(keys))
    }

    /// Lists everything that is staged, in pages, in no particular order; each key is one segment.
    #[must_use]
    pub fn list(&self) -> StagingPages {
        match &self.backend {
            StagingBackend::Fs(backend) => backend.list(),
            StagingBackend::S3(backend) => backend.list(),
        }
    }

    /// Whether staging is in a bucket.
    #[must_use]
    pub fn is_in_a_bucket(&self) -> bool {
        matches!(self.backend, StagingBackend::S3(_))
    }

    /// The path of the staged file; `None` for a bucket.
    #[must_use]
    pub fn local_path(&self, key: StagingKey) -> Option<PathBuf> {
        match &self.backend {
            StagingBackend::Fs(fs) => Some(fs.path(key)),
            StagingBackend::S3(_) => None,
        }
    }

    /// Whether staging is in a folder.
    pub(crate) fn is_folder(&self) -> bool {
        matches!(self.backend, StagingBackend::Fs(_))
    }

    /// From now on nothing is staged in or deleted from a location without the marker of this installation.
    pub(crate) fn expect_marker(&self, installation: Uuid) {
        match &self.backend {
            StagingBackend::Fs(fs) => fs.expect_marker(installation),
            StagingBackend::S3(s3) => s3.store.marker.expect(installation),
        }
    }

    /// Reads the marker of this location; in a bucket it is that of storage.
    ///
    /// # Errors
    /// Errors of the folder or bucket, except that there is no marker.
    pub(crate) async fn marker(&self) -> Result<Option<Marker>, StagingError> {
        match &self.backend {
            StagingBackend::Fs(fs) => fs.marker().await,
            StagingBackend::S3(s3) => Ok(Box::pin(s3.store.read_marker()).await?),
        }
    }

    /// Writes the marker of `installation`, overwriting any other if `replace` is set. Returns false when another
    /// marker was kept.
    ///
    /// # Errors
    /// Errors of the folder or bucket.
    pub(crate) async fn write_marker(
        &self,
        installation: Uuid,
        replace: bool,
    ) -> Result<bool, StagingError> {
        match &self.backend {
            StagingBackend::Fs(fs) => fs.write_marker(installation, replace).await,
            StagingBackend::S3(s3) => {
                Ok(Box::pin(s3.store.write_marker(installation, replace)).await?)
            }
        }
    }

    /// Returns the usage of staging. It is measured again when the last measurement is older than `max_age`, but in a
    /// bucket at most once a minute.
    ///
    /// # Errors
    /// Errors of the folder or bucket.
    pub async fn usage(&self, max_age: Duration) -> Result<StagingUsage, StagingError> {
        on!(self, backend => backend.usage(max_age))
    }

    /// Returns the limit that is reached now, if any.
    ///
    /// # Errors
    /// Errors of the folder or bucket.
    pub async fn shortage(&self) -> Result<Option<StagingShortage>, StagingError> {
        on!(self, backend => backend.shortage())
    }

    /// The startup check: writes, reads back and deletes bytes.
    ///
    /// # Errors
    /// The first problem found.
    pub async fn probe(&self) -> Result<(), StagingError> {
        on!(self, backend => backend.probe())
    }

    /// Checks whether staging responds within two seconds.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn health(&self) -> Result<(), StagingError> {
        let check = async { on!(self, backend => backend.health()) };
        match tokio::time::timeout(HEALTH_TIMEOUT, check).await {
            Ok(outcome) => outcome,
            Err(late) => Err(StagingError::io("answer")(late.into())),
        }
    }
}
