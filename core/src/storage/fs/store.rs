//! A folder as a [`Store`].

use super::FsStorage;
use crate::{
    digest::Sha256Digest,
    fs_io::fsync::blocking,
    installation::Marker,
    storage::{
        ObjectInfo, ObjectPages, ObjectStream, StorageError, StorageKey, UnfinishedWrite,
        UnfinishedWritePages,
        store::{PutRequest, Store, StoreFuture},
    },
};
use futures::{FutureExt, TryStreamExt};
use sha2::{Digest, Sha256};
use std::{io::Write, ops::Range, sync::Arc};
use uuid::Uuid;

impl FsStorage {
    /// Writes the stream to a temporary file, and publishes it under its key.
    pub(super) async fn put_stream(
        &self,
        request: PutRequest<'_>,
        mut bytes: ObjectStream,
    ) -> Result<(), StorageError> {
        let (mut temporary, mut hasher, mut size) = (self.temporary().await?, Sha256::new(), 0);
        while let Some(piece) = bytes.try_next().await? {
            size += piece.len() as u64;
            let written = blocking(move || {
                temporary.file.write_all(&piece)?;
                hasher.update(&piece);
                Ok((temporary, hasher))
            });
            (temporary, hasher) = written.await.map_err(StorageError::io("write a file"))?;
        }
        let content = (Sha256Digest::from_hasher(hasher), size);
        self.publish(temporary, request.key, content, request.overwrite)
            .await
    }
}

impl Store for FsStorage {
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

    fn list(self: Arc<Self>, prefix: &str) -> ObjectPages {
        Self::list(&self, prefix)
    }

    fn probe(self: Arc<Self>) -> StoreFuture<'static, ()> {
        async move { Self::probe(&self).await }.boxed()
    }

    fn health(&self) -> StoreFuture<'_, ()> {
        self.health().boxed()
    }

    fn expect_marker(&self, installation: Uuid) {
        self.expect_marker(installation);
    }

    fn marker(&self) -> StoreFuture<'_, Option<Marker>> {
        self.marker().boxed()
    }

    fn write_marker(&self, installation: Uuid, replace: bool) -> StoreFuture<'_, bool> {
        self.write_marker(installation, replace).boxed()
    }

    fn is_mountable(&self) -> bool {
        true
    }

    fn unfinished(self: Arc<Self>) -> UnfinishedWritePages {
        Self::unfinished(&self)
    }

    fn remove_unfinished<'a>(&'a self, unfinished: &'a UnfinishedWrite) -> StoreFuture<'a, ()> {
        self.remove_unfinished(unfinished).boxed()
    }

    fn orphaned_key(&self, key: &StorageKey) -> StorageKey {
        key.orphaned()
    }

    fn set_aside<'a>(&'a self, key: &'a StorageKey) -> StoreFuture<'a, ()> {
        self.set_aside(key).boxed()
    }
}
