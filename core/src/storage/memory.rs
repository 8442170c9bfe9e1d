//! Storage in memory, for tests: nothing outlives the process, and no setting selects it.

use super::{
    ListedObject, ObjectInfo, ObjectPages, ObjectStream, PAGE, StorageError, StorageKey,
    store::{PutRequest, Store, StoreFuture},
};
use crate::{
    digest::Sha256Digest,
    installation::{Marker, MarkerError},
};
use bytes::{Bytes, BytesMut};
use chrono::{DateTime, Utc};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use uuid::Uuid;

/// Size of the pieces in which an object is read, in bytes.
const READ_SIZE: usize = 64 * 1024;

/// See the module documentation.
#[derive(Debug, Default)]
pub struct MemoryStore {
    contents: Mutex<Contents>,
}

#[derive(Debug, Default)]
struct Contents {
    objects: BTreeMap<StorageKey, MemoryObject>,
    marker: Option<Uuid>,
    expected_marker: Option<Uuid>,
}

#[derive(Clone, Debug)]
struct MemoryObject {
    bytes: Bytes,
    sha256: Sha256Digest,
    origin: String,
    modified: DateTime<Utc>,
}

impl Contents {
    fn require_marker(&self) -> Result<(), StorageError> {
        let refuse = |problem| Err(StorageError::Marker(problem));
        match (self.expected_marker, self.marker) {
            (None, _) => Ok(()),
            (Some(expected), Some(found)) if found == expected => Ok(()),
            (Some(_), Some(found)) => refuse(MarkerError::Foreign {
                found: found.to_string(),
            }),
            (Some(_), None) => refuse(MarkerError::Missing),
        }
    }
}

impl MemoryStore {
    fn contents(&self) -> MutexGuard<'_, Contents> {
        // Every change is a single insertion or removal, so a panic elsewhere leaves the contents whole.
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, request: &PutRequest<'_>, bytes: Bytes) -> Result<(), StorageError> {
        let object = MemoryObject {
            sha256: Sha256Digest::compute(&bytes),
            bytes,
            origin: request.origin.to_owned(),
            modified: Utc::now(),
        };
        let mut contents = self.contents();
        contents.require_marker()?;
        match contents.objects.get(request.key) {
            Some(other) if !request.overwrite && other.origin != request.origin => {
                Err(StorageError::KeyTaken)
            }
            _ => {
                contents.objects.insert(request.key.clone(), object);
                Ok(())
            }
        }
    }
}

impl Store for MemoryStore {
    fn put<'a>(
        self: Arc<Self>,
        request: PutRequest<'a>,
        bytes: ObjectStream,
    ) -> StoreFuture<'a, ()> {
        async move {
            let bytes: BytesMut = bytes.try_collect().await?;
            self.insert(&request, bytes.freeze())
        }
        .boxed()
    }

    fn head<'a>(&'a self, key: &'a StorageKey) -> StoreFuture<'a, Option<ObjectInfo>> {
        async move {
            let contents = self.contents();
            Ok(contents.objects.get(key).map(|object| ObjectInfo {
                size: object.bytes.len() as u64,
                etag: None,
                sha256: Some(object.sha256),
                modified: object.modified,
            }))
        }
        .boxed()
    }

    fn read<'a>(
        &'a self,
        key: &'a StorageKey,
        range: Option<Range<u64>>,
    ) -> StoreFuture<'a, ObjectStream> {
        async move {
            let object = self.contents().objects.get(key).cloned();
            let bytes = object.ok_or(StorageError::NotFound)?.bytes;
            let end = bytes.len() as u64;
            let range = range.unwrap_or(0..end);
            let within = |at: u64| usize::try_from(at.min(end)).unwrap_or(bytes.len());
            let (start, end) = (within(range.start), within(range.end));
            let pieces: Vec<_> = (start..end)
                .step_by(READ_SIZE)
                .map(|at| Ok(bytes.slice(at..end.min(at + READ_SIZE))))
                .collect();
            Ok(stream::iter(pieces).boxed())
        }
        .boxed()
    }

    fn delete<'a>(&'a self, key: &'a StorageKey) -> StoreFuture<'a, ()> {
        async move {
            let mut contents = self.contents();
            contents.require_marker()?;
            contents.objects.remove(key);
            Ok(())
        }
        .boxed()
    }

    fn list(self: Arc<Self>, prefix: &str) -> ObjectPages {
        let objects: Vec<_> = self
            .contents()
            .objects
            .iter()
            .filter(|(key, _)| key.as_str().starts_with(prefix))
            .map(|(key, object)| ListedObject {
                key: key.as_str().to_owned(),
                size: object.bytes.len() as u64,
                etag: None,
                modified: object.modified,
            })
            .collect();
        stream::iter(objects).chunks(PAGE).map(Ok).boxed()
    }

    fn probe(self: Arc<Self>) -> StoreFuture<'static, ()> {
        async { Ok(()) }.boxed()
    }

    fn health(&self) -> StoreFuture<'_, ()> {
        async { Ok(()) }.boxed()
    }

    fn expect_marker(&self, installation: Uuid) {
        self.contents().expected_marker = Some(installation);
    }

    fn marker(&self) -> StoreFuture<'_, Option<Marker>> {
        async move { Ok(self.contents().marker.map(Marker::Id)) }.boxed()
    }

    fn write_marker(&self, installation: Uuid, replace: bool) -> StoreFuture<'_, bool> {
        async move {
            let mut contents = self.contents();
            if contents.marker.is_some() && !replace {
                return Ok(false);
            }
            contents.marker = Some(installation);
            Ok(true)
        }
        .boxed()
    }

    fn origin<'a>(&'a self, key: &'a StorageKey) -> StoreFuture<'a, Option<String>> {
        async move {
            let contents = self.contents();
            Ok(contents
                .objects
                .get(key)
                .map(|object| object.origin.clone()))
        }
        .boxed()
    }
}
