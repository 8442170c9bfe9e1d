//! Staging in the storage bucket, under `staging/`.
//!
//! Guarantees: what a call reports as staged has been acknowledged by the store. What is staged needs no memory
//! beside the bucket: no multipart upload stays open, and no list of parts is kept in the database.
//!
//! Configuration: `staging.backend = "s3"` and the settings of `storage.s3`; `staging.quota`.
//!
//! Implementation: the bytes under a key are segments, objects of up to 8 MiB named by the offset of their first
//! byte: `staging/KEY/OFFSET-UUIDv7`. An append writes further segments, a part those of its place. Reading follows
//! the chain: from each segment to the one that begins where it ends. Of two that begin at one place the younger
//! counts. Finalize lets the store copy the segments into the parts of the object.
//!
//! Considerations: small appends make small segments; finalize sends those again itself. Two processes that append
//! to one key at once, which the database's offset prevents, are told apart by the age of their segments, so by
//! their clocks. A body holds up to 16 MiB of memory.

mod chain;

use super::{
    Appended, ListedStaging, Options, PartStaged, Staged, StagingError, StagingKey, StagingPages,
    StagingStream, Usage,
    body::{Batch, Body, End, Intake},
    capacity::{Capacity, Shortage},
    hashes::Hasher,
};
use crate::{
    config::ByteSize,
    digest::Sha256Digest,
    storage::s3::{NewObject, S3Storage},
};
use bytes::{Bytes, BytesMut};
pub(crate) use chain::Chain;
use futures::{StreamExt, TryStreamExt, stream};
use std::{ops::Range, sync::Arc, time::Duration};
use uuid::Uuid;

/// How big a segment is, unless it is the last of a body, in bytes: above the 5 MiB a copied part must have.
pub(crate) const SEGMENT: u64 = 8 * 1024 * 1024;
/// Where staging is in the bucket.
const PREFIX: &str = "staging/";
/// Segments of one key deleted at once.
const DELETIONS: usize = 16;
/// How old the sum of all segments may be when a quota is checked: it costs one request per thousand.
const FRESH: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(crate) struct S3Staging {
    pub(crate) store: Arc<S3Storage>,
    capacity: Capacity,
}

/// What came of a body.
struct Taken {
    written: u64,
    hasher: Hasher,
    stopped: Option<StagingError>,
}

/// Deletes what a failed or dropped write has staged.
struct Litter {
    store: Arc<S3Storage>,
    key: Option<StagingKey>,
}

impl Drop for Litter {
    fn drop(&mut self) {
        let (Some(key), Ok(runtime)) = (self.key, tokio::runtime::Handle::try_current()) else {
            return;
        };
        let store = Arc::clone(&self.store);
        runtime.spawn(async move {
            if let Err(error) = delete(&store, key).await {
                tracing::warn!(%error, "staging of a failed upload is left to the sweep");
            }
        });
    }
}

impl S3Staging {
    pub(crate) fn new(store: Arc<S3Storage>, quota: Option<ByteSize>) -> Self {
        let quota = quota.map(|quota| quota.0);
        Self {
            store,
            capacity: Capacity::new(quota, 0, None, FRESH),
        }
    }

    pub(crate) async fn admit(&self, options: &Options<'_>) -> Result<(), StagingError> {
        let expected = options.expected.unwrap_or(0);
        self.capacity.admit(expected, self.measure()).await
    }

    pub(crate) async fn write(
        &self,
        key: StagingKey,
        body: Body<'_>,
        options: &Options<'_>,
    ) -> Result<Staged, StagingError> {
        self.admit(options).await?;
        let mut litter = Litter {
            store: Arc::clone(&self.store),
            key: Some(key),
        };
        let intake = Intake::new(body, options.limit);
        let taken = self.take(key, 0, intake, options, false).await?;
        if let Some(error) = taken.stopped {
            litter.key = None;
            delete(&self.store, key).await?;
            return Err(error);
        }
        litter.key = None;
        Ok(Staged {
            size: taken.written,
            hashes: taken.hasher.finish(),
        })
    }

    pub(crate) async fn create(&self, key: StagingKey) -> Result<(), StagingError> {
        self.admit(&Options::default()).await?;
        self.put(key, 0, Bytes::new(), Sha256Digest::of(&[])).await
    }

    pub(crate) async fn append(
        &self,
        key: StagingKey,
        offset: u64,
        body: Body<'_>,
        options: &Options<'_>,
    ) -> Result<Appended, StagingError> {
        self.admit(options).await?;
        chain::cut(&self.store, key, offset).await?;
        let intake = Intake::new(body, options.limit);
        let mut taken = self.take(key, offset, intake, options, true).await?;
        Ok(Appended {
            length: offset + taken.written,
            running: taken.hasher.take_running(),
            hashes: taken.hasher.finish(),
            stopped: taken.stopped,
        })
    }

    pub(crate) async fn put_part(
        &self,
        key: StagingKey,
        offset: u64,
        size: u64,
        body: Body<'_>,
        options: &Options<'_>,
    ) -> Result<PartStaged, StagingError> {
        self.admit(options).await?;
        if Self::is_gone(&self.store, key).await? {
            return Err(StagingError::Gone);
        }
        let intake = Intake::new(body, size);
        let taken = self.take(key, offset, intake, options, false).await?;
        match taken.stopped {
            Some(StagingError::TooLarge { .. }) => Err(StagingError::WrongSize {
                expected: size,
                found: size + 1,
            }),
            Some(error) => Err(error),
            None if taken.written != size => Err(StagingError::WrongSize {
                expected: size,
                found: taken.written,
            }),
            None => Ok(PartStaged {
                hashes: taken.hasher.finish(),
            }),
        }
    }

    /// Puts a body as segments, one under way while the next comes in. The last, if the body stopped, is put only
    /// with `keep`.
    async fn take(
        &self,
        key: StagingKey,
        offset: u64,
        mut intake: Intake<'_>,
        options: &Options<'_>,
        keep: bool,
    ) -> Result<Taken, StagingError> {
        const SEGMENT_LENGTH: usize = SEGMENT as usize;
        let mut taken = Taken {
            written: 0,
            hasher: Hasher::new(options.hashes, options.running),
            stopped: None,
        };
        let mut batch = intake.batch(SEGMENT_LENGTH).await;
        loop {
            let end = batch.end.take();
            let stopped = matches!(end, Some(End::Stopped(_)));
            let size = batch.size as u64;
            let put = async {
                let (bytes, digest, hasher) = joined(batch, taken.hasher.clone()).await?;
                // A whole body may be empty; it is staged as a segment of nothing.
                let nothing = size == 0 && (offset + taken.written > 0 || stopped);
                if !nothing && (keep || !stopped) {
                    self.put(key, offset + taken.written, bytes, digest).await?;
                }
                Ok::<_, StagingError>(hasher)
            };
            let (put, next) = match end {
                None => {
                    let (put, next) = futures::join!(put, intake.batch(SEGMENT_LENGTH));
                    (put, Some(next))
                }
                Some(_) => (put.await, None),
            };
            match put {
                Ok(hasher) => {
                    taken.hasher = hasher;
                    taken.written += size;
                }
                Err(error) => {
                    taken.stopped = Some(error);
                    return Ok(taken);
                }
            }
            match (end, next) {
                (Some(End::Stopped(error)), _) => {
                    taken.stopped = Some(error);
                    return Ok(taken);
                }
                (None, Some(next)) => batch = next,
                _ => return Ok(taken),
            }
        }
    }

    async fn put(
        &self,
        key: StagingKey,
        offset: u64,
        bytes: Bytes,
        digest: Sha256Digest,
    ) -> Result<(), StagingError> {
        let size = bytes.len() as u64;
        let object = NewObject {
            key: &format!("{}{offset:020}-{}", folder(key), Uuid::now_v7()),
            content_type: "application/octet-stream",
            origin: &key.to_string(),
            size,
            sha256: Some(digest),
            // Nobody else has a name with this UUID.
            overwrite: true,
        };
        self.capacity.count(size)?;
        Ok(self.store.put(&object, bytes).await?)
    }

    /// True when there is nothing under the key.
    async fn is_gone(store: &Arc<S3Storage>, key: StagingKey) -> Result<bool, StagingError> {
        Ok(chain::segments(store, key, 0).try_next().await?.is_none())
    }

    pub(crate) async fn len(&self, key: StagingKey) -> Result<Option<u64>, StagingError> {
        let mut segments = chain::segments(&self.store, key, 0);
        let mut length = None;
        while let Some(segment) = segments.try_next().await? {
            length = length.max(Some(segment.offset + segment.size));
        }
        Ok(length)
    }

    pub(crate) async fn read(
        &self,
        key: StagingKey,
        range: Range<u64>,
    ) -> Result<StagingStream, StagingError> {
        Chain::of(&self.store, key, range).bytes().await
    }

    pub(crate) async fn delete(&self, key: StagingKey) -> Result<(), StagingError> {
        delete(&self.store, key).await
    }

    /// The segments of a key follow each other in a list of the bucket, but a page may end between them: then the
    /// key is listed once more, with the rest.
    pub(crate) fn list(&self) -> StagingPages {
        let pages = self.store.list(PREFIX).map(|page| {
            let mut keys: Vec<ListedStaging> = Vec::new();
            for object in page? {
                let Some((key, _)) = parsed(&object.key) else {
                    continue;
                };
                match keys.last_mut() {
                    Some(last) if last.key == key => {
                        last.allocated += object.size;
                        last.modified = last.modified.max(object.modified);
                    }
                    _ => keys.push(ListedStaging {
                        key,
                        allocated: object.size,
                        modified: object.modified,
                    }),
                }
            }
            Ok(keys)
        });
        pages.boxed()
    }

    async fn measure(&self) -> Result<u64, StagingError> {
        self.list()
            .try_fold(0, |sum, page| async move {
                Ok(sum + page.iter().map(|staged| staged.allocated).sum::<u64>())
            })
            .await
    }

    pub(crate) async fn usage(&self, max_age: Duration) -> Result<Usage, StagingError> {
        self.capacity.usage(max_age, self.measure()).await
    }

    pub(crate) async fn shortage(&self) -> Result<Option<Shortage>, StagingError> {
        self.capacity.shortage(self.measure()).await
    }

    /// Really writes, reads back and deletes.
    pub(crate) async fn probe(&self) -> Result<(), StagingError> {
        let key = StagingKey::generate();
        let content = Bytes::from(key.to_string());
        self.put(key, 0, content.clone(), Sha256Digest::of(&content))
            .await?;
        let read = self.read(key, 0..content.len() as u64).await;
        let read = match read {
            Ok(bytes) => bytes.try_collect::<BytesMut>().await,
            Err(error) => Err(error),
        };
        self.delete(key).await?;
        if read? != content {
            return Err(StagingError::Storage(
                crate::storage::StorageError::NotAsSent("other bytes were read back".to_owned()),
            ));
        }
        Ok(())
    }

    pub(crate) async fn health(&self) -> Result<(), StagingError> {
        Ok(self.store.health().await?)
    }
}

/// One piece of memory of many, hashed for itself and for the body, where that may take its time.
async fn joined(
    batch: Batch,
    mut hasher: Hasher,
) -> Result<(Bytes, Sha256Digest, Hasher), StagingError> {
    tokio::task::spawn_blocking(move || {
        let bytes = match <[Bytes; 1]>::try_from(batch.pieces) {
            Ok([only]) => only,
            Err(pieces) => Bytes::from(pieces.concat()),
        };
        hasher.update(&bytes);
        let digest = Sha256Digest::of(&bytes);
        (bytes, digest, hasher)
    })
    .await
    .map_err(|lost| StagingError::io("hash")(std::io::Error::other(lost)))
}

/// Deletes everything under the key; what an interruption leaves is still listed under it.
///
/// One request for each segment: not every store knows the one that deletes many.
async fn delete(store: &Arc<S3Storage>, key: StagingKey) -> Result<(), StagingError> {
    let mut pages = store.list(&folder(key));
    while let Some(page) = pages.try_next().await? {
        stream::iter(page)
            .map(|object| async move { store.delete_key(&object.key).await })
            .buffer_unordered(DELETIONS)
            .try_collect::<()>()
            .await?;
    }
    Ok(())
}

fn folder(key: StagingKey) -> String {
    format!("{PREFIX}{key}/")
}

/// Which staging a segment belongs to, and its first byte's offset.
fn parsed(name: &str) -> Option<(StagingKey, u64)> {
    let (key, segment) = name.strip_prefix(PREFIX)?.split_once('/')?;
    let (offset, _) = segment.split_once('-')?;
    Some((key.parse().ok()?, offset.parse().ok()?))
}
