//! Staging in the storage bucket, under `staging/`.
//!
//! Guarantees: whatever a call reports as staged has been acknowledged by the store. No multipart upload stays open.
//! Each object has a single writer and is put once: no other writer uses its name.
//!
//! Configuration: `staging.backend = "s3"` and the settings of `storage.s3`; `staging.quota`.
//!
//! Implementation: a segment is a sequence of objects of up to 8 MiB, `staging/OWNER/START.WRITER/POSITION`, each named
//! by the position of its first byte in the segment. Reading lists a segment's objects and uses as many of their bytes
//! as the database counts. Finalize lets the store copy the objects into parts of the stored object.
//!
//! Considerations: small appends make small objects, whose bytes finalize sends again itself. All bodies of a process
//! together use at most 128 MiB of memory (see [`memory_budget`]).

mod memory_budget;
mod objects;
mod unsegmented;

use super::{
    AppendOutcome, ListedStaging, Piece, SegmentWriter, StagedBody, StagingError, StagingKey,
    StagingPages, StagingStream, StagingUsage, WriteOptions,
    body::{BodyEnd, BodyReader, BoxBody},
    capacity::{Capacity, StagingShortage},
    hashes::Hasher,
};
use crate::{
    config::ByteSize,
    digest::Sha256Digest,
    failpoint,
    storage::s3::{NewObject, S3Storage},
};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use memory_budget::BodyMemory;
pub(crate) use objects::PieceObjects;
use std::{
    collections::{BTreeMap, HashSet},
    ops::Range,
    sync::Arc,
    time::Duration,
};
use uuid::Uuid;

/// Maximum size of an object, in bytes: more than the 5 MiB that a copied part must have.
pub(crate) const MAX_OBJECT_SIZE: usize = 8 * 1024 * 1024;
/// Prefix of staging in the bucket.
const PREFIX: &str = "staging/";
/// Maximum number of concurrent DELETE requests.
const MAX_CONCURRENT_DELETES: usize = 16;
/// Maximum age of the measured usage when the quota is checked; measuring takes one request per thousand objects.
const MAX_USAGE_AGE: Duration = Duration::from_secs(60);

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct S3Staging {
    pub(crate) store: Arc<S3Storage>,
    capacity: Capacity,
    memory: BodyMemory,
}

/// The result of writing a body.
struct WriteOutcome {
    written: u64,
    hasher: Hasher,
    stopped: Option<StagingError>,
}

/// Deletes what a failed or dropped write has staged.
struct CleanupGuard {
    store: Arc<S3Storage>,
    key: Option<StagingKey>,
}

impl Drop for CleanupGuard {
    fn drop(&mut self) {
        let (Some(key), Ok(runtime)) = (self.key, tokio::runtime::Handle::try_current()) else {
            return;
        };
        let store = Arc::clone(&self.store);
        runtime.spawn(async move {
            if let Err(error) = delete(&store, &[key]).await {
                tracing::warn!(%error, "the staged bytes of a failed upload are left to the sweep");
            }
        });
    }
}

impl S3Staging {
    pub(crate) fn new(store: Arc<S3Storage>, quota: Option<ByteSize>) -> Self {
        let quota = quota.map(|quota| quota.0);
        Self {
            store,
            capacity: Capacity::new(quota, 0, None, MAX_USAGE_AGE),
            memory: BodyMemory::default(),
        }
    }

    pub(crate) async fn admit(&self, options: &WriteOptions<'_>) -> Result<(), StagingError> {
        let expected = options.expected.unwrap_or(0);
        self.capacity.admit(expected, self.measure()).await
    }

    pub(crate) async fn write(
        &self,
        key: StagingKey,
        body: BoxBody<'_>,
        options: &WriteOptions<'_>,
    ) -> Result<StagedBody, StagingError> {
        self.admit(options).await?;
        let mut cleanup = CleanupGuard {
            store: Arc::clone(&self.store),
            key: Some(key),
        };
        let intake = BodyReader::new(body, options.limit);
        let taken = self.take(key, 0, intake, options, false).await?;
        if let Some(error) = taken.stopped {
            cleanup.key = None;
            delete(&self.store, &[key]).await?;
            return Err(error);
        }
        cleanup.key = None;
        Ok(StagedBody {
            size: taken.written,
            hashes: taken.hasher.finish(),
        })
    }

    /// Appends to a segment of `length` bytes.
    pub(crate) async fn append(
        &self,
        key: StagingKey,
        length: u64,
        body: BoxBody<'_>,
        options: &WriteOptions<'_>,
    ) -> Result<AppendOutcome, StagingError> {
        self.admit(options).await?;
        let intake = BodyReader::new(body, options.limit);
        let mut taken = self.take(key, length, intake, options, true).await?;
        Ok(AppendOutcome {
            length: length + taken.written,
            running: taken.hasher.take_running(),
            hashes: taken.hasher.finish(),
            stopped: taken.stopped,
        })
    }

    /// Puts a body as objects, one being put while the next is received. If the body is interrupted, the last object is
    /// put only with `keep`. An empty body becomes an object only without `keep`.
    async fn take(
        &self,
        key: StagingKey,
        length: u64,
        mut intake: BodyReader<'_>,
        options: &WriteOptions<'_>,
        keep: bool,
    ) -> Result<WriteOutcome, StagingError> {
        let mut taken = WriteOutcome {
            written: 0,
            hasher: Hasher::new(options.hashes, options.running),
            stopped: None,
        };
        let mut gathered = self.memory.buffer(&mut intake).await;
        loop {
            let end = gathered.end.take();
            let stopped = matches!(end, Some(BodyEnd::Stopped(_)));
            let size = gathered.bytes.len() as u64;
            let position = length + taken.written;
            let put = async {
                let memory = gathered.memory;
                let hasher = taken.hasher.clone();
                let (bytes, digest, hasher) = hashed(gathered.bytes, hasher).await?;
                let is_wanted = match (size, keep) {
                    (0, true) => false,
                    (0, false) => position == 0 && !stopped,
                    (_, keep) => keep || !stopped,
                };
                if is_wanted {
                    failpoint!("staging.writing");
                    self.put(key, position, bytes, digest).await?;
                    failpoint!("staging.written");
                }
                drop(memory);
                Ok::<_, StagingError>(hasher)
            };
            let (put, next) = match end {
                None => {
                    let (put, next) = futures::join!(put, self.memory.buffer(&mut intake));
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
                (Some(BodyEnd::Stopped(error)), _) => {
                    taken.stopped = Some(error);
                    return Ok(taken);
                }
                (None, Some(next)) => gathered = next,
                _ => return Ok(taken),
            }
        }
    }

    async fn put(
        &self,
        key: StagingKey,
        position: u64,
        bytes: Bytes,
        digest: Sha256Digest,
    ) -> Result<(), StagingError> {
        let size = bytes.len() as u64;
        let object = NewObject {
            key: &format!("{}{position:020}", prefix(key)),
            content_type: "application/octet-stream",
            origin: &key.to_string(),
            size,
            sha256: Some(digest),
            // No other writer has the name, and this one puts it once.
            overwrite: true,
            is_staged: true,
        };
        self.capacity.count(size)?;
        self.store.put_object(&object, bytes).await?;
        Ok(())
    }

    pub(crate) async fn len(&self, key: StagingKey) -> Result<Option<u64>, StagingError> {
        let mut listing = objects::list_after(&self.store, key.owner(), prefix(key));
        let mut length = None;
        while let Some((listed, object)) = listing.try_next().await? {
            if listed == key {
                length = length.max(Some(object.position + object.size));
            } else if !object.name.starts_with(&prefix(key)) {
                break;
            }
        }
        Ok(length)
    }

    pub(crate) async fn read(
        &self,
        key: StagingKey,
        range: Range<u64>,
    ) -> Result<StagingStream, StagingError> {
        let piece = Piece {
            offset: range.start,
            ..Piece::new(key, range.end - range.start)
        };
        PieceObjects::new(&self.store, &[piece]).bytes().await
    }

    pub(crate) async fn delete(&self, keys: &[StagingKey]) -> Result<(), StagingError> {
        delete(&self.store, keys).await
    }

    /// The objects of a segment are adjacent in a listing, but a page may end between them: the key is then listed once
    /// more, with the rest.
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

    pub(crate) async fn usage(&self, max_age: Duration) -> Result<StagingUsage, StagingError> {
        self.capacity.usage(max_age, self.measure()).await
    }

    pub(crate) async fn shortage(&self) -> Result<Option<StagingShortage>, StagingError> {
        self.capacity.shortage(self.measure()).await
    }

    /// Writes, reads back and deletes an object.
    pub(crate) async fn probe(&self) -> Result<(), StagingError> {
        let key = StagingKey::generate();
        let content = Bytes::from(key.to_string());
        self.put(key, 0, content.clone(), Sha256Digest::compute(&content))
            .await?;
        let read = self.read(key, 0..content.len() as u64).await;
        let read = match read {
            Ok(bytes) => bytes.try_collect::<BytesMut>().await,
            Err(error) => Err(error),
        };
        self.delete(&[key]).await?;
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

/// Hashes bytes, for their own digest and that of the body, on a blocking thread.
async fn hashed(
    bytes: Bytes,
    mut hasher: Hasher,
) -> Result<(Bytes, Sha256Digest, Hasher), StagingError> {
    tokio::task::spawn_blocking(move || {
        hasher.update(&bytes);
        let digest = Sha256Digest::compute(&bytes);
        (bytes, digest, hasher)
    })
    .await
    .map_err(|lost| StagingError::io("hash")(std::io::Error::other(lost)))
}

/// Deletes all objects of these keys; after an interruption the rest is still listed. The objects of one owner are
/// listed once for all of its keys.
///
/// One request per object, because not every store supports deleting several.
async fn delete(store: &Arc<S3Storage>, keys: &[StagingKey]) -> Result<(), StagingError> {
    let mut owners: BTreeMap<Uuid, HashSet<StagingKey>> = BTreeMap::new();
    for key in keys {
        owners.entry(key.owner()).or_default().insert(*key);
    }
    for (owner, keys) in owners {
        // For a single key, only its own objects are listed.
        let listed = match keys.iter().next() {
            Some(only) if keys.len() == 1 => prefix(*only),
            _ => folder(owner),
        };
        let mut pages = store.list(&listed);
        while let Some(page) = pages.try_next().await? {
            let wanted = page.into_iter().filter(|object| {
                parsed(&object.key).is_some_and(|(listed, _)| keys.contains(&listed))
            });
            stream::iter(wanted)
                .map(|object| async move { store.delete_key(&object.key).await })
                .buffer_unordered(MAX_CONCURRENT_DELETES)
                .try_collect::<()>()
                .await?;
        }
    }
    Ok(())
}

fn folder(owner: Uuid) -> String {
    format!("{PREFIX}{owner}/")
}

/// The common prefix of the names of a key's objects.
fn prefix(key: StagingKey) -> String {
    let folder = folder(key.owner());
    match key.writer() {
        Some(writer) => format!("{folder}{:020}.{writer}/", key.start()),
        // Shared with the segments of the upload, which have other names.
        None => folder,
    }
}

/// Parses the key that an object belongs to, and the position of its first byte.
fn parsed(name: &str) -> Option<(StagingKey, u64)> {
    let (owner, rest) = name.strip_prefix(PREFIX)?.split_once('/')?;
    let owner: Uuid = owner.parse().ok()?;
    let Some((segment, position)) = rest.split_once('/') else {
        let (offset, _) = rest.split_once('-')?;
        return Some((StagingKey::unsegmented(owner), offset.parse().ok()?));
    };
    let (start, writer) = segment.split_once('.')?;
    let writer: SegmentWriter = writer.parse().ok()?;
    let key = StagingKey::segment(owner, start.parse().ok()?, writer);
    Some((key, position.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_objects_tell_their_key_and_place() {
        let owner = Uuid::now_v7();
        for key in [
            StagingKey::segment(owner, 0, SegmentWriter::Fence(0)),
            StagingKey::segment(owner, 9, SegmentWriter::Attempt(owner)),
        ] {
            let name = format!("{}{:020}", prefix(key), 77);
            assert_eq!(parsed(&name), Some((key, 77)));
        }
        let before = format!("staging/{owner}/{:020}-{owner}", 5);
        let unsegmented = StagingKey::unsegmented(owner);
        assert_eq!(parsed(&before), Some((unsegmented, 5)));
        for other in ["staging/", "staging/readme", "uploads/a/1.2/3"] {
            assert_eq!(parsed(other), None, "{other}");
        }
    }
}
