//! Storage of finalized objects: a folder, or a bucket of any S3-compatible store.
//!
//! Guarantees of every backend:
//! - An object appears atomically, and is durable once the call that put it has returned.
//! - Nothing is overwritten without `overwrite`: if another writer's object is at the key, the call fails with
//!   [`StorageError::KeyTaken`]. On a file system this is exact; on S3 it holds where the store supports
//!   `If-None-Match`. Everywhere, the database, which reserves keys, is the first safeguard.
//! - Deleting is idempotent. Memory use does not grow with the size or the number of objects.
//! - Every call ends: each network request has a timeout, and retries are bounded.

mod capability;
mod error;
pub(crate) mod fs;
mod key;
mod memory;
pub(crate) mod s3;
mod store;

use crate::{config, digest::Sha256Digest, installation::Marker};
use bytes::Bytes;
pub use capability::{Capability, Support};
use chrono::{DateTime, Utc};
pub use error::StorageError;
use futures::{StreamExt, stream, stream::BoxStream};
pub use key::{InvalidStorageKey, MAX_NAME_LEN, StorageKey, safe_name};
pub use memory::MemoryStore;
pub use s3::S3Timeouts;
use std::{any::Any, ops::Range, sync::Arc, time::Duration};
pub use store::{PutRequest, Store, StoreFuture};
use url::Url;
use uuid::Uuid;

/// Maximum number of objects per page of a listing: what one S3 response contains.
pub const PAGE: usize = 1000;
/// Prefix of the objects that a startup check puts and deletes; a crash may leave one.
pub(crate) const PROBES: &str = "landfall-probe-";
/// Timeout of a health check.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// Metadata of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// In bytes.
    pub size: u64,
    /// As the store reports it, including its quotes; `None` on a file system.
    pub etag: Option<String>,
    /// Digest of the whole object, if the store keeps it.
    pub sha256: Option<Sha256Digest>,
    pub modified: DateTime<Utc>,
}

/// A listed object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedObject {
    /// As in the store: objects of others need not be named by a valid [`StorageKey`].
    pub key: String,
    /// In bytes.
    pub size: u64,
    /// As the store reports it, including its quotes; `None` on a file system.
    pub etag: Option<String>,
    pub modified: DateTime<Utc>,
}

/// A write in progress, or the remains of an interrupted one: an open multipart upload, or a temporary file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnfinishedWrite {
    /// The key of the object; a temporary file has none yet.
    pub key: Option<String>,
    /// The id of the multipart upload, or the name of the temporary file.
    pub id: String,
    /// When the upload was started, or the file was last written to.
    pub since: DateTime<Utc>,
}

/// Response headers that a signed URL overrides.
#[derive(Clone, Copy, Debug, Default)]
pub struct UrlOptions<'a> {
    /// A complete `Content-Disposition` (RFC 6266).
    pub content_disposition: Option<&'a str>,
    /// A complete `Content-Type`.
    pub content_type: Option<&'a str>,
    /// Sign for HEAD, because a signature is valid for one method only.
    pub head: bool,
}

/// Credentials, without their secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CredentialsInfo {
    /// In words, to follow "from".
    pub source: &'static str,
    /// `None` for permanent ones.
    pub expires_at: Option<DateTime<Utc>>,
}

/// The bytes of an object, in pieces of bounded size.
pub type ObjectStream = BoxStream<'static, Result<Bytes, StorageError>>;
/// Listed objects, in pages of at most [`PAGE`].
pub type ObjectPages = BoxStream<'static, Result<Vec<ListedObject>, StorageError>>;

/// Unfinished writes, in pages of at most [`PAGE`].
pub type UnfinishedWritePages = BoxStream<'static, Result<Vec<UnfinishedWrite>, StorageError>>;

/// A handle on storage; clones share connections and state.
#[derive(Clone, Debug)]
pub struct Storage {
    store: Arc<dyn Store>,
}

impl Storage {
    /// Opens storage as configured: creates the folder, or the client of the bucket (without sending a request).
    ///
    /// # Errors
    /// [`StorageError::Io`] when the folder cannot be created.
    pub async fn open(config: &config::StorageConfig) -> Result<Self, StorageError> {
        Self::open_with_timeouts(config, S3Timeouts::default()).await
    }

    /// [`Self::open`] with other timeouts for requests to a bucket.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_with_timeouts(
        config: &config::StorageConfig,
        timeouts: S3Timeouts,
    ) -> Result<Self, StorageError> {
        let store = store::open(config, timeouts).await?;
        Ok(Self { store })
    }

    /// Storage in a store of another kind.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// The store, if it is of this type: for transfers that can do better than receive a stream.
    pub(crate) fn downcast<S: Store>(&self) -> Option<Arc<S>> {
        let store: Arc<dyn Store> = Arc::clone(&self.store);
        let store: Arc<dyn Any + Send + Sync> = store;
        store.downcast().ok()
    }

    /// Puts a small object of at most a few MiB, which is held in memory. Files are stored by [`crate::transfer`].
    ///
    /// # Errors
    /// [`StorageError::KeyTaken`] when an object exists at the key, and errors of the store.
    pub async fn put_bytes(
        &self,
        key: &StorageKey,
        bytes: Bytes,
        content_type: &str,
    ) -> Result<(), StorageError> {
        let request = PutRequest {
            key,
            content_type,
            origin: &Uuid::now_v7().to_string(),
            size: bytes.len() as u64,
            overwrite: false,
        };
        self.put(request, stream::iter([Ok(bytes)]).boxed()).await
    }

    /// Puts an object of any size from a stream. If the stream ends with an error, no object appears.
    ///
    /// # Errors
    /// As [`Self::put_bytes`], and errors of the stream.
    pub async fn put(
        &self,
        request: PutRequest<'_>,
        bytes: ObjectStream,
    ) -> Result<(), StorageError> {
        Arc::clone(&self.store).put(request, bytes).await
    }

    /// Returns the metadata of an object; `None` if it does not exist.
    ///
    /// # Errors
    /// Errors of the store, except that the object does not exist.
    pub async fn head(&self, key: &StorageKey) -> Result<Option<ObjectInfo>, StorageError> {
        self.store.head(key).await
    }

    /// Reads an object, or a range of it; a range that extends beyond the end is truncated.
    ///
    /// # Errors
    /// [`StorageError::NotFound`], and errors of the store. The stream ends with an error if the bytes end early.
    pub async fn read(
        &self,
        key: &StorageKey,
        range: Option<Range<u64>>,
    ) -> Result<ObjectStream, StorageError> {
        self.store.read(key, range).await
    }

    /// Deletes an object. Deleting a missing object succeeds.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn delete(&self, key: &StorageKey) -> Result<(), StorageError> {
        self.store.delete(key).await
    }

    /// [`Self::delete`] with a single request that is not retried: once it is answered, no other is in flight.
    ///
    /// # Errors
    /// As [`Self::delete`]; after [`StorageError::NoAnswer`] the store may still delete the object at any time.
    pub async fn delete_once(&self, key: &StorageKey) -> Result<(), StorageError> {
        self.store.delete_once(key).await
    }

    /// Lists every object whose key starts with `prefix`, in pages, in no particular order.
    ///
    /// Objects that are put or deleted concurrently may or may not be listed.
    #[must_use]
    pub fn list(&self, prefix: &str) -> ObjectPages {
        Arc::clone(&self.store).list(prefix)
    }

    /// Returns the URL at which a browser can download the object: signed for `querystring_expire` seconds, or plain
    /// without `querystring_auth` (the options then have no effect). `None` where Landfall serves the object.
    ///
    /// # Errors
    /// [`StorageError::Setting`] when no URL can be made with the settings. No request is sent.
    pub async fn url(
        &self,
        key: &StorageKey,
        options: UrlOptions<'_>,
    ) -> Result<Option<Url>, StorageError> {
        self.store.url(key, options).await
    }

    /// The startup check: writes an object, reads it back, downloads it by its URL, lists it and deletes it.
    ///
    /// # Errors
    /// The first problem found; on S3 the setting that must be changed ([`StorageError::Setting`]).
    pub async fn probe(&self) -> Result<(), StorageError> {
        Arc::clone(&self.store).probe().await
    }

    /// Returns what is known of the abilities that not every store has; complete after [`Self::probe`].
    #[must_use]
    pub fn capabilities(&self) -> Vec<Capability> {
        self.store.capabilities()
    }

    /// Returns where the credentials that are used now come from; `None` where none are used.
    ///
    /// # Errors
    /// [`StorageError::Setting`] when they cannot be had.
    pub async fn credentials(&self) -> Result<Option<CredentialsInfo>, StorageError> {
        self.store.credentials().await
    }

    /// Checks whether storage responds within two seconds.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn health(&self) -> Result<(), StorageError> {
        tokio::time::timeout(HEALTH_TIMEOUT, self.store.health())
            .await
            .unwrap_or_else(|late| {
                Err(StorageError::NoAnswer {
                    action: "pass a health check",
                    source: late.into(),
                })
            })
    }

    /// Whether storage may be missing now and be mounted later.
    pub(crate) fn is_mountable(&self) -> bool {
        self.store.is_mountable()
    }

    /// Whether other programs may keep objects in the same place, so that only those with an [origin](Self::origin)
    /// belong to Landfall.
    pub(crate) fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    /// From now on nothing is written to or deleted from a location without the marker of this installation.
    pub(crate) fn expect_marker(&self, installation: Uuid) {
        self.store.expect_marker(installation);
    }

    /// Reads the marker of this location.
    ///
    /// # Errors
    /// Errors of the store, except that there is no marker.
    pub(crate) async fn marker(&self) -> Result<Option<Marker>, StorageError> {
        self.store.marker().await
    }

    /// Writes the marker of `installation`, overwriting any other if `replace` is set. Returns false when another
    /// marker was kept.
    ///
    /// # Errors
    /// Errors of the store.
    pub(crate) async fn write_marker(
        &self,
        installation: Uuid,
        replace: bool,
    ) -> Result<bool, StorageError> {
        self.store.write_marker(installation, replace).await
    }

    /// Lists every open multipart upload below Landfall's prefixes, or every temporary file. A store that cannot list
    /// multipart uploads returns none; that is logged once.
    #[must_use]
    pub fn unfinished(&self) -> UnfinishedWritePages {
        Arc::clone(&self.store).unfinished()
    }

    /// Removes an unfinished write. A missing one counts as removed; a multipart upload that cannot be aborted now is
    /// logged and left to the sweep.
    ///
    /// # Errors
    /// Errors of the file system.
    pub async fn remove_unfinished(
        &self,
        unfinished: &UnfinishedWrite,
    ) -> Result<(), StorageError> {
        self.store.remove_unfinished(unfinished).await
    }

    /// Returns which staging an object in a bucket says it came from; `None` for objects of others, and in a folder.
    pub(crate) async fn origin(&self, key: &StorageKey) -> Result<Option<String>, StorageError> {
        self.store.origin(key).await
    }

    /// The key of an object once it is set aside: in a bucket, where moving would take a copy, its own key.
    pub(crate) fn orphaned_key(&self, key: &StorageKey) -> StorageKey {
        self.store.orphaned_key(key)
    }

    /// Moves an object to [`Self::orphaned_key`].
    pub(crate) async fn set_aside(&self, key: &StorageKey) -> Result<(), StorageError> {
        self.store.set_aside(key).await
    }
}
