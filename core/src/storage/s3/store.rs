//! A bucket as a [`Store`].

use super::{MultipartUpload, NewObject, S3Storage, probe};
use crate::{
    digest::Sha256Digest,
    installation::Marker,
    storage::{
        Capability, CredentialsInfo, ObjectInfo, ObjectPages, ObjectStream, StorageError,
        StorageKey, UnfinishedWrite, UnfinishedWritePages, UrlOptions,
        store::{PutRequest, Store, StoreFuture},
    },
};
use bytes::{Bytes, BytesMut};
use futures::{FutureExt, TryStreamExt};
use std::{ops::Range, sync::Arc};
use url::Url;
use uuid::Uuid;

/// Size of the parts that a stream is sent in, in bytes. A stream that is not longer is sent in one request.
const PART_SIZE: usize = 8 * 1024 * 1024;

/// A stream, cut into parts.
struct PartStream {
    bytes: ObjectStream,
    gathered: BytesMut,
}

impl PartStream {
    /// Returns the next part, which is empty at the end.
    async fn next(&mut self) -> Result<Bytes, StorageError> {
        while self.gathered.len() < PART_SIZE
            && let Some(piece) = self.bytes.try_next().await?
        {
            self.gathered.extend_from_slice(&piece);
        }
        let size = self.gathered.len().min(PART_SIZE);
        Ok(self.gathered.split_to(size).freeze())
    }
}

impl S3Storage {
    /// Puts an object of any size, whose parts are sent one after the other. Transfers send several at once.
    async fn put_stream(
        self: &Arc<Self>,
        request: PutRequest<'_>,
        bytes: ObjectStream,
    ) -> Result<(), StorageError> {
        let object = NewObject {
            key: request.key.as_str(),
            content_type: request.content_type,
            origin: request.origin,
            size: request.size,
            sha256: None,
            overwrite: request.overwrite,
            is_staged: false,
        };
        let mut parts = PartStream {
            bytes,
            gathered: BytesMut::new(),
        };
        let first = parts.next().await?;
        if first.len() < PART_SIZE {
            return self.put_object(&object, first).await.map(drop);
        }
        // Dropped with an error, it is aborted.
        let upload = MultipartUpload::begin(self, &object).await?;
        let (mut part, mut sent) = (first, Vec::new());
        for number in 1.. {
            let digest = self.signs_parts().then(|| Sha256Digest::compute(&part));
            sent.push(upload.send(number, part, digest).await?);
            part = parts.next().await?;
            if part.is_empty() {
                break;
            }
        }
        upload.complete(&object, sent).await
    }
}

impl Store for S3Storage {
    fn put<'a>(
        self: Arc<Self>,
        request: PutRequest<'a>,
        bytes: ObjectStream,
    ) -> StoreFuture<'a, ()> {
        async move { self.put_stream(request, bytes).await }.boxed()
    }

    fn head<'a>(&'a self, key: &'a StorageKey) -> StoreFuture<'a, Option<ObjectInfo>> {
        self.head(key).boxed()
    }

    fn read<'a>(
        &'a self,
        key: &'a StorageKey,
        range: Option<Range<u64>>,
    ) -> StoreFuture<'a, ObjectStream> {
        self.read(key, range).boxed()
    }

    fn delete<'a>(&'a self, key: &'a StorageKey) -> StoreFuture<'a, ()> {
        self.delete(key).boxed()
    }

    fn delete_once<'a>(&'a self, key: &'a StorageKey) -> StoreFuture<'a, ()> {
        self.delete_once(key).boxed()
    }

    fn list(self: Arc<Self>, prefix: &str) -> ObjectPages {
        Self::list(&self, prefix)
    }

    fn probe(self: Arc<Self>) -> StoreFuture<'static, ()> {
        async move { probe::probe(&self).await }.boxed()
    }

    fn capabilities(&self) -> Vec<Capability> {
        self.capabilities.list(&self.clients)
    }

    fn credentials(&self) -> StoreFuture<'_, Option<CredentialsInfo>> {
        async move {
            let info = self.credentials.info().await;
            info.map(Some).map_err(probe::missing_credentials)
        }
        .boxed()
    }

    fn health(&self) -> StoreFuture<'_, ()> {
        self.health().boxed()
    }

    fn expect_marker(&self, installation: Uuid) {
        self.marker.expect(installation);
    }

    fn marker(&self) -> StoreFuture<'_, Option<Marker>> {
        self.read_marker().boxed()
    }

    fn write_marker(&self, installation: Uuid, replace: bool) -> StoreFuture<'_, bool> {
        self.write_marker(installation, replace).boxed()
    }

    fn url<'a>(
        &'a self,
        key: &'a StorageKey,
        options: UrlOptions<'a>,
    ) -> StoreFuture<'a, Option<Url>> {
        async move { self.url(key, options).await.map(Some) }.boxed()
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn origin<'a>(&'a self, key: &'a StorageKey) -> StoreFuture<'a, Option<String>> {
        self.origin(key).boxed()
    }

    fn unfinished(self: Arc<Self>) -> UnfinishedWritePages {
        Self::unfinished(&self)
    }

    fn remove_unfinished<'a>(&'a self, unfinished: &'a UnfinishedWrite) -> StoreFuture<'a, ()> {
        async move {
            self.abort_unfinished(unfinished).await;
            Ok(())
        }
        .boxed()
    }
}
