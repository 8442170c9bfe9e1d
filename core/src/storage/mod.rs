//! Storage of finalized objects: a folder, or a bucket of any S3-compatible store.
//!
//! Guarantees of both backends:
//! - An object appears atomically, and is durable once the call that put it has returned.
//! - Nothing is overwritten without `overwrite`: if another writer's object is at the key, the call fails with
//!   [`StorageError::KeyTaken`]. On a file system this is exact; on S3 it holds where the store supports
//!   `If-None-Match`. Everywhere, the database, which reserves keys, is the first safeguard.
//! - Deleting is idempotent. Memory use does not grow with the size or the number of objects.
//! - Every call ends: each network request has a timeout, and retries are bounded.

mod error;
pub(crate) mod fs;
mod key;
pub(crate) mod s3;

use crate::{
    config::{self, Backend},
    digest::Sha256Digest,
    installation::Marker,
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
pub use error::StorageError;
use fs::FsStorage;
use futures::stream::BoxStream;
pub use key::{InvalidStorageKey, MAX_NAME_LEN, StorageKey, safe_name};
use s3::S3Storage;
pub use s3::S3Timeouts;
use std::{ops::Range, sync::Arc, time::Duration};
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

/// The bytes of an object, in pieces of bounded size.
pub type ObjectStream = BoxStream<'static, Result<Bytes, StorageError>>;
/// Listed objects, in pages of at most [`PAGE`].
pub type ObjectPages = BoxStream<'static, Result<Vec<ListedObject>, StorageError>>;

/// Unfinished writes, in pages of at most [`PAGE`].
pub type UnfinishedWritePages = BoxStream<'static, Result<Vec<UnfinishedWrite>, StorageError>>;

/// A handle on storage; clones share connections and state.
#[derive(Clone, Debug)]
pub struct Storage {
    pub(crate) backend: StorageBackend,
}

/// The two kinds of storage.
#[derive(Clone, Debug)]
pub(crate) enum StorageBackend {
    Fs(Arc<FsStorage>),
    S3(Arc<S3Storage>),
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
        pace: S3Timeouts,
    ) -> Result<Self, StorageError> {
        let backend = match config.backend {
            Backend::Fs => {
                StorageBackend::Fs(Arc::new(FsStorage::open(config.path.clone()).await?))
            }
            Backend::S3 => StorageBackend::S3(Arc::new(S3Storage::open(&config.s3, pace))),
        };
        Ok(Self { backend })
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
        match &self.backend {
            StorageBackend::Fs(fs) => fs.put_bytes(key, bytes).await,
            StorageBackend::S3(s3) => Box::pin(s3.put_bytes(key, bytes, content_type)).await,
        }
    }

    /// Returns the metadata of an object; `None` if it does not exist.
    ///
    /// # Errors
    /// Errors of the store, except that the object does not exist.
    pub async fn head(&self, key: &StorageKey) -> Result<Option<ObjectInfo>, StorageError> {
        match &self.backend {
            StorageBackend::Fs(fs) => fs.head(key).await,
            StorageBackend::S3(s3) => Box::pin(s3.head(key)).await,
        }
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
        match &self.backend {
            StorageBackend::Fs(fs) => fs.read(key, range).await,
            StorageBackend::S3(s3) => Box::pin(s3.read(key, range)).await,
        }
    }

    /// Deletes an object. Deleting a missing object succeeds.
    ///
    /// # Errors
    /// Errors of the store.
    pub async fn delete(&self, key: &StorageKey) -> Result<(), StorageError> {
        match &self.backend {
            StorageBackend::Fs(fs) => fs.delete(key).await,
            StorageBackend::S3(s3) => Box::pin(s3.delete(key)).await,
        }
    }

    /// [`Self::delete`] with a single request that is not retried: once it is answered, no other is in flight.
    ///
    /// # Errors
    /// As [`Self::delete`]; after [`StorageError::NoAnswer`] the store may still delete the object at any time.
    pub async fn delete_once(&self, key: &StorageKey) -> Result<(), StorageError> {
        match &self.backend {
            StorageBackend::Fs(fs) => fs.delete(key).await,
            StorageBackend::S3(s3) => Box::pin(s3.delete_once(key)).await,
        }
    }

    /// Lists every object whose key starts with `prefix`, in pages, in no particular order.
    ///
    /// Objects that are put or deleted concurrently may or may not be listed.
    #[must_use]
    pub fn list(&self, prefix: &str) -> ObjectPages {
        match &self.backend {
            StorageBackend::Fs(fs) => fs.list(prefix),
            StorageBackend::S3(s3) => s3.list(prefix),
        }
    }

    /// Returns the URL at which a browser can download the object: signed for `querystring_expire` seconds, or plain
    /// without `querystring_auth` (the options then have no effect). `None` on a file system, where Landfall serves the
    /// object.
    ///
    /// # Errors
    /// [`StorageError::Setting`] when no URL can be made with the settings. No request is sent.
    pub async fn url(
        &self,
        key: &StorageKey,
        options: UrlOptions<'_>,
    ) -> Result<Option<Url>, StorageError> {
        match &self.backend {
            StorageBackend::Fs(_) => Ok(None),
            StorageBackend::S3(s3) => Box::pin(s3.url(key, options)).await.map(Some),
        }
    }

    /// The startup check: writes an object, reads it back, downloads it by its URL, lists it and deletes it.
    ///
    /// # Errors
    /// The first problem found; on S3 the setting that must be changed ([`StorageError::Setting`]).
    pub async fn probe(&self) -> Result<(), StorageError> {
        match &self.backend {
            StorageBackend::Fs(fs) => fs.probe().await,
            StorageBackend::S3(s3) => Box::pin(s3::probe::probe(s3)).await,
        }
    }

    /// Checks whether storage responds within two seconds.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn health(&self) -> Result<(), StorageError> {
        let check = async {
            match &self.backend {
                StorageBackend::Fs(fs) => fs.health().await,
                StorageBackend::S3(s3) => Box::pin(s3.health()).await,
            }
        };
        tokio::time::timeout(HEALTH_TIMEOUT, check)
            .await
            .unwrap_or_else(|late| {
                Err(StorageError::NoAnswer {
                    action: "pass a health check",
                    source: late.into(),
                })
            })
    }

    /// Whether storage is in a folder.
    pub(crate) fn is_folder(&self) -> bool {
        matches!(self.backend, StorageBackend::Fs(_))
    }

    /// From now on nothing is written to or deleted from a location without the marker of this installation.
    pub(crate) fn expect_marker(&self, installation: Uuid) {
        match &self.backend {
            StorageBackend::Fs(fs) => fs.expect_marker(installation),
            StorageBackend::S3(s3) => s3.marker.expect(installation),
        }
    }

    /// Reads the marker of this location.
    ///
    /// # Errors
    /// Errors of the store, except that there is no marker.
    pub(crate) async fn marker(&self) -> Result<Option<Marker>, StorageError> {
        match &self.backend {
            StorageBackend::Fs(fs) => fs.marker().await,
            StorageBackend::S3(s3) => Box::pin(s3.read_marker()).await,
        }
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
        match &self.backend {
            StorageBackend::Fs(fs) => fs.write_marker(installation, replace).await,
            StorageBackend::S3(s3) => Box::pin(s3.write_marker(installation, replace)).await,
        }
    }

    /// Lists every open multipart upload below Landfall's prefixes, or every temporary file. A store that cannot list
    /// multipart uploads returns none; that is logged once.
    #[must_use]
    pub fn unfinished(&self) -> UnfinishedWritePages {
        match &self.backend {
            StorageBackend::Fs(fs) => fs.unfinished(),
            StorageBackend::S3(s3) => s3.unfinished(),
        }
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
        match &self.backend {
            StorageBackend::Fs(fs) => fs.remove_unfinished(unfinished).await,
            StorageBackend::S3(s3) => {
                s3.abort_unfinished(unfinished).await;
                Ok(())
            }
        }
    }

    /// Returns which staging an object in a bucket says it came from; `None` for objects of others, and in a folder.
    pub(crate) async fn origin(&self, key: &StorageKey) -> Result<Option<String>, StorageError> {
        match &self.backend {
            StorageBackend::Fs(_) => Ok(None),
            StorageBackend::S3(s3) => Box::pin(s3.origin(key)).await,
        }
    }

    /// The key of an object once it is set aside: in a bucket, where moving would take a copy, its own key.
    pub(crate) fn orphaned_key(&self, key: &StorageKey) -> StorageKey {
        match &self.backend {
            StorageBackend::Fs(_) => key.orphaned(),
            StorageBackend::S3(_) => key.clone(),
        }
    }

    /// Moves an object to [`Self::orphaned_key`].
    pub(crate) async fn set_aside(&self, key: &StorageKey) -> Result<(), StorageError> {
        match &self.backend {
            StorageBackend::Fs(fs) => fs.set_aside(key).await,
            StorageBackend::S3(_) => Ok(()),
        }
    }
}
