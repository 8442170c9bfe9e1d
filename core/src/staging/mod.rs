//! Where bytes wait between their arrival and finalize: a folder, or the storage bucket under `staging/`.
//!
//! Guarantees, on both:
//! - What a call reports as staged is durable when it returns, and found by every other process.
//! - A segment is written by one writer, in order, and is never overwritten, cut or written by another one. So the
//!   bytes that a row lists do not change any more, whatever a writer does that slept through its lease.
//! - Memory does not grow with the body; a body that fails leaves what the call says and nothing else.
//! - Deleting is idempotent, and so is reading: staging is never changed by [`crate::transfer`].
//!
//! Refuses to decide what counts: the database lists the segments that do, with their lengths. A segment may hold more
//! than is listed of it, which nobody reads. A call whose future is dropped stops soon after; what it was writing then
//! is not reported to anybody.

mod body;
mod capacity;
mod error;
pub(crate) mod fs;
pub(crate) mod hashes;
mod key;
mod probe;
pub(crate) mod s3;

use crate::{
    config::{self, Backend},
    digest::Sha256State,
    installation::Marker,
    storage::{Storage, StorageBackend, StorageError},
};
use body::BoxBody;
use bytes::Bytes;
pub use capacity::StagingShortage;
use chrono::{DateTime, Utc};
pub use error::StagingError;
use fs::FsStaging;
use futures::{
    Stream, StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use hashes::Hasher;
pub use hashes::{ChecksumAlgorithm, Hashes};
pub use key::{InvalidStagingKey, SegmentWriter, StagingKey};
pub use probe::{ProbeError, StagingProbe, live_hosts};
use s3::{PieceObjects, S3Staging};
use std::{error::Error, ops::Range, path::PathBuf, sync::Arc, time::Duration};
use uuid::Uuid;

/// How long a health check may take.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// How a body is taken in.
#[derive(Clone, Copy, Debug)]
pub struct WriteOptions<'a> {
    /// The most the body may have, in bytes.
    pub limit: u64,
    /// What the sender says it has, in bytes: a body that cannot fit is refused before it is read.
    pub expected: Option<u64>,
    /// What to hash it with on its way.
    pub hashes: &'a [ChecksumAlgorithm],
    /// For appends: the hash of what is staged before the body, to be gone on with.
    pub running: Option<&'a Sha256State>,
}

impl Default for WriteOptions<'_> {
    /// Any length, no digest.
    fn default() -> Self {
        Self {
            limit: u64::MAX,
            expected: None,
            hashes: &[],
            running: None,
        }
    }
}

/// A whole body, staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StagedBody {
    /// In bytes.
    pub size: u64,
    /// Those asked for.
    pub hashes: Hashes,
}

/// What an append came to.
#[derive(Debug)]
pub struct AppendOutcome {
    /// How long the segment is now, in bytes, all of them durable. At 0 there is no segment.
    pub length: u64,
    /// Of the bytes this call added, those asked for.
    pub hashes: Hashes,
    /// Of all the bytes of the upload so far, if it was continued and is still known.
    pub running: Option<Sha256State>,
    /// Why the body ended early, if it did; the length counts what came before.
    pub stopped: Option<StagingError>,
}

/// Staged bytes of one segment, as the database lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub key: StagingKey,
    /// Where they begin within the segment, in bytes: 0 but for parts that a version without segments took in.
    pub offset: u64,
    /// In bytes. The segment may hold more, which does not count.
    pub size: u64,
    /// A writer that has lost its lease may still be adding to the segment, beyond `size`.
    pub may_grow: bool,
}

impl Piece {
    /// The first bytes of a segment to which nobody adds any more.
    #[must_use]
    pub fn new(key: StagingKey, size: u64) -> Self {
        Self {
            key,
            offset: 0,
            size,
            may_grow: false,
        }
    }

    pub(crate) fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.size
    }
}

/// One staged key of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedStaging {
    pub key: StagingKey,
    /// What it takes up, in bytes.
    pub allocated: u64,
    /// When bytes were last written to it.
    pub modified: DateTime<Utc>,
}

/// How full staging is; in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StagingUsage {
    /// All that waits, as of at most the age that was asked for.
    pub used: u64,
    /// Free space of the disk; none in a bucket.
    pub free: Option<u64>,
    pub quota: Option<u64>,
}

/// Staged bytes, in pieces of bounded size.
pub type StagingStream = BoxStream<'static, Result<Bytes, StagingError>>;
/// All that is staged, in pages of at most [`crate::storage::PAGE`].
pub type StagingPages = BoxStream<'static, Result<Vec<ListedStaging>, StagingError>>;

/// Where bytes wait; clones share connections and state.
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

/// Awaits the same on whichever backend it is. The future of an S3 request is large, and is boxed so that a folder's
/// callers do not carry room for it.
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

/// Staging in a bucket and storage in a folder do not go together.
pub(crate) fn bucket_beside_folder() -> StorageError {
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
    /// [`StagingError::Io`] when the folder cannot be made, [`StagingError::Storage`] when staging is to be in a
    /// bucket and storage is not.
    pub async fn open(
        config: &config::StagingConfig,
        storage: &Storage,
    ) -> Result<Self, StagingError> {
        let backend = match (config.backend, &storage.backend) {
            (Backend::Fs, storage) => {
                // On its way to a bucket everything is read again.
                let direct_io = config.direct_io && matches!(storage, StorageBackend::Fs(_));
                StagingBackend::Fs(Arc::new(FsStaging::open(config, direct_io).await?))
            }
            (Backend::S3, StorageBackend::S3(s3)) => {
                StagingBackend::S3(Arc::new(S3Staging::new(Arc::clone(s3), config.quota)))
            }
            (Backend::S3, StorageBackend::Fs(_)) => {
                return Err(StagingError::Storage(bucket_beside_folder()));
            }
        };
        Ok(Self { backend })
    }

    /// Stages a whole body under a key of its own. When it fails, or is dropped, nothing stays behind.
    ///
    /// A key that exists is refused in a folder; a bucket is not asked, as every writer has keys of its own.
    ///
    /// # Errors
    /// [`StagingError::TooLarge`], [`StagingError::Full`], [`StagingError::Body`], [`StagingError::Exists`], and what
    /// the folder or bucket answers.
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
    /// [`StagingError::WrongSize`], and those of [`Self::write`] but `TooLarge`.
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

    /// Refuses a body of any size when there is no room at all.
    ///
    /// # Errors
    /// [`StagingError::Full`], and what the folder or bucket answers.
    pub async fn admit(&self) -> Result<(), StagingError> {
        on!(self, backend => backend.admit(&WriteOptions::default()))
    }

    /// Appends a body to a segment of `length` bytes, which the caller alone writes; at 0 the segment is begun, and must
    /// not exist. All that came before an error is kept and durable, and a body without a byte begins nothing.
    ///
    /// To keep also what came before the client went away, the call must go on then: run it in a task of its own, and
    /// to pre-empt it, end its body with an error instead of dropping it.
    ///
    /// # Errors
    /// [`StagingError::Gone`], [`StagingError::Exists`] and [`StagingError::WrongLength`] when the segment is not as
    /// the caller left it, and what the folder or bucket answers before anything was written. Later errors are in
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

    /// Hashes a body and keeps nothing of it; answers its size too.
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

    /// How many bytes there are under a key, counted or not; none when there is no such key.
    ///
    /// # Errors
    /// What the folder or bucket answers.
    pub async fn len(&self, key: StagingKey) -> Result<Option<u64>, StagingError> {
        on!(self, backend => backend.len(key))
    }

    /// The bytes of a range that is wholly staged.
    ///
    /// # Errors
    /// [`StagingError::Gone`]; the stream ends with an error when it comes to the end before the range does.
    pub async fn read(
        &self,
        key: StagingKey,
        range: Range<u64>,
    ) -> Result<StagingStream, StagingError> {
        on!(self, backend => backend.read(key, range))
    }

    /// The bytes of pieces, one after the other. Whether the first is there is found out before the stream begins.
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

    /// The first `size` bytes of a piece, which has as many: few enough to be held in memory.
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

    /// Deletes what is staged under these keys; a key that is not there counts as deleted.
    ///
    /// # Errors
    /// What the folder or bucket answers; what was deleted before stays so.
    pub async fn delete(&self, keys: &[StagingKey]) -> Result<(), StagingError> {
        on!(self, backend => backend.delete(keys))
    }

    /// All that is staged, in pages, in no particular order; each key is one segment.
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

    /// The file the bytes are in; none in a bucket.
    #[must_use]
    pub fn local_path(&self, key: StagingKey) -> Option<PathBuf> {
        match &self.backend {
            StagingBackend::Fs(fs) => Some(fs.path(key)),
            StagingBackend::S3(_) => None,
        }
    }

    /// True in a folder, false in a bucket.
    pub(crate) fn is_folder(&self) -> bool {
        matches!(self.backend, StagingBackend::Fs(_))
    }

    /// From now on nothing is staged in or deleted from a place without the marker of this installation.
    pub(crate) fn expect_marker(&self, installation: Uuid) {
        match &self.backend {
            StagingBackend::Fs(fs) => fs.expect_marker(installation),
            StagingBackend::S3(s3) => s3.store.marker.expect(installation),
        }
    }

    /// The marker at this place, looked for now; in a bucket it is that of storage.
    ///
    /// # Errors
    /// What the folder or bucket answers, except that there is none.
    pub(crate) async fn marker(&self) -> Result<Option<Marker>, StagingError> {
        match &self.backend {
            StagingBackend::Fs(fs) => fs.marker().await,
            StagingBackend::S3(s3) => Ok(Box::pin(s3.store.read_marker()).await?),
        }
    }

    /// Writes the marker of `installation`, with `replace` over any other; false when another one stays.
    ///
    /// # Errors
    /// What the folder or bucket answers.
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

    /// How full staging is. What is used is measured again when the last measurement is older than `max_age`; in a
    /// bucket none is younger than a minute.
    ///
    /// # Errors
    /// What the folder or bucket answers.
    pub async fn usage(&self, max_age: Duration) -> Result<StagingUsage, StagingError> {
        on!(self, backend => backend.usage(max_age))
    }

    /// The limit that is reached now, if one is.
    ///
    /// # Errors
    /// What the folder or bucket answers.
    pub async fn shortage(&self) -> Result<Option<StagingShortage>, StagingError> {
        on!(self, backend => backend.shortage())
    }

    /// The start-up check: really writes, reads back and deletes.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub async fn probe(&self) -> Result<(), StagingError> {
        on!(self, backend => backend.probe())
    }

    /// Whether staging answers, within two seconds.
    ///
    /// # Errors
    /// Why not.
    pub async fn health(&self) -> Result<(), StagingError> {
        let check = async { on!(self, backend => backend.health()) };
        match tokio::time::timeout(HEALTH_TIMEOUT, check).await {
            Ok(outcome) => outcome,
            Err(late) => Err(StagingError::io("answer")(late.into())),
        }
    }
}
