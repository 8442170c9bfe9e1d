//! Where stored objects live: a folder, or a bucket of any S3-compatible store.
//!
//! Guarantees, on both:
//! - An object appears whole or not at all, and is durable once the call that put it there has returned.
//! - Nothing is overwritten but by `overwrite`: an object somebody else put at a key is [`StorageError::KeyTaken`].
//!   On a file system this is exact; on S3 it holds where the store knows `If-None-Match`, and the database, which
//!   reserves keys, is the first fence everywhere.
//! - Deleting is idempotent. Memory does not grow with the size or the number of objects.
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

/// How many objects a page of a list has at most: what one S3 answer holds.
pub const PAGE: usize = 1000;
/// What the names of objects begin with that a start-up check puts and deletes; a crash may leave one.
pub(crate) const PROBES: &str = "landfall-probe-";
/// How long a health check may take.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);

/// What storage knows of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// In bytes.
    pub size: u64,
    /// As the store says it, with its quotes; none on a file system.
    pub etag: Option<String>,
    /// Of the whole object, if the store keeps it.
    pub sha256: Option<Sha256Digest>,
    pub modified: DateTime<Utc>,
}

/// One object of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedObject {
    /// As the store has it: objects of strangers need not have a name that is a [`StorageKey`].
    pub key: String,
    /// In bytes.
    pub size: u64,
    /// As the store says it, with its quotes; none on a file system.
    pub etag: Option<String>,
    pub modified: DateTime<Utc>,
}

/// What is being written, or what an interrupted write has left: an open multipart upload, or a temporary file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnfinishedWrite {
    /// The key the object is to have; a temporary file has none yet.
    pub key: Option<String>,
    /// The id of the multipart upload, or the name of the temporary file.
    pub id: String,
    /// When the upload was begun, or the file last written to.
    pub since: DateTime<Utc>,
}

/// What a download of a signed URL is to say of itself, over what the object says.
#[derive(Clone, Copy, Debug, Default)]
pub struct UrlOptions<'a> {
    /// A whole `Content-Disposition` (RFC 6266).
    pub content_disposition: Option<&'a str>,
    /// A whole `Content-Type`.
    pub content_type: Option<&'a str>,
    /// To be asked for by HEAD: a signature holds for one method.
    pub head: bool,
}

/// The bytes of an object, in pieces of bounded size.
pub type ObjectStream = BoxStream<'static, Result<Bytes, StorageError>>;
/// The objects of a list, in pages of at most [`PAGE`].
pub type ObjectPages = BoxStream<'static, Result<Vec<ListedObject>, StorageError>>;

/// All that is unfinished, in pages of at most [`PAGE`].
pub type UnfinishedWritePages = BoxStream<'static, Result<Vec<UnfinishedWrite>, StorageError>>;

/// Where stored objects live; clones share connections and state.
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
    /// Opens storage as configured: makes the folder, or the client of the bucket (without a request).
    ///
    /// # Errors
    /// [`StorageError::Io`] when the folder cannot be made.
    pub async fn open(config: &config::StorageConfig) -> Result<Self, StorageError> {
        Self::open_with_timeouts(config, S3Timeouts::default()).await
    }

    /// The same, with other bounds on how long requests to a bucket may take.
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

    /// Puts a small object: at most a few MiB, as it is held in memory. Files go by [`transfer`].
    ///
    /// # Errors
    /// [`StorageError::KeyTaken`] when there is one at the key, and what the store answers.
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

    /// What is known of an object; none when it is not there.
    ///
    /// # Errors
    /// What the store answers but for «not there».
    pub async fn head(&self, key: &StorageKey) -> Result<Option<ObjectInfo>, StorageError> {
        match &self.backend {
            StorageBackend::Fs(fs) => fs.head(key).await,
            StorageBackend::S3(s3) => Box::pin(s3.head(key)).await,
        }
    }

    /// The bytes of an object, or those of a range of it; a range that reaches beyond the end stops there.
    ///
    /// # Errors
    /// [`StorageError::NotFound`], and what the store answers. The stream ends with an error when the bytes stop
    /// coming before the end.
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

    /// Deletes an object; one that is not there counts as deleted.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn delete(&self, key: &StorageKey) -> Result<(), StorageError> {
        match &self.backend {
            StorageBackend::Fs(fs) => fs.delete(key).await,
            StorageBackend::S3(s3) => Box::pin(s3.delete(key)).await,
        }
    }

    /// [`Self::delete`] by one request that is not repeated: when it is answered, no other is under way.
    ///
    /// # Errors
    /// As [`Self::delete`]; after [`StorageError::NoAnswer`] the store may still delete the object at any time.
    pub async fn delete_once(&self, key: &StorageKey) -> Result<(), StorageError> {
        match &self.backend {
            StorageBackend::Fs(fs) => fs.delete(key).await,
            StorageBackend::S3(s3) => Box::pin(s3.delete_once(key)).await,
        }
    }

    /// Every object whose key begins with `prefix`, in pages, in no particular order.
    ///
    /// Objects put or deleted meanwhile may be in it or not.
    #[must_use]
    pub fn list(&self, prefix: &str) -> ObjectPages {
        match &self.backend {
            StorageBackend::Fs(fs) => fs.list(prefix),
            StorageBackend::S3(s3) => s3.list(prefix),
        }
    }

    /// Where a browser gets the object: a URL signed for `querystring_expire` seconds, or the plain URL without
    /// `querystring_auth` (the options have no effect on it). None on a file system: there, Landfall serves it.
    ///
    /// # Errors
    /// [`StorageError::Setting`] when no URL can be made of the settings. Nothing is sent.
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

    /// The start-up check: writes an object, reads it back, fetches it by its URL, lists it and deletes it.
    ///
    /// # Errors
    /// The first thing that is wrong; on S3 by the setting that has to be changed ([`StorageError::Setting`]).
    pub async fn probe(&self) -> Result<(), StorageError> {
        match &self.backend {
            StorageBackend::Fs(fs) => fs.probe().await,
            StorageBackend::S3(s3) => Box::pin(s3::probe::probe(s3)).await,
        }
    }

    /// Whether storage answers, within two seconds.
    ///
    /// # Errors
    /// Why not.
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
                    action: "tell that it is well",
                    source: late.into(),
                })
            })
    }

    /// True in a folder, false in a bucket.
    pub(crate) fn is_folder(&self) -> bool {
        matches!(self.backend, StorageBackend::Fs(_))
    }

    /// From now on nothing is written to or deleted from a place without the marker of this installation.
    pub(crate) fn expect_marker(&self, installation: Uuid) {
        match &self.backend {
            StorageBackend::Fs(fs) => fs.expect_marker(installation),
            StorageBackend::S3(s3) => s3.marker.expect(installation),
        }
    }

    /// The marker at this place, looked for now.
    ///
    /// # Errors
    /// What the store answers, except that there is none.
    pub(crate) async fn marker(&self) -> Result<Option<Marker>, StorageError> {
        match &self.backend {
            StorageBackend::Fs(fs) => fs.marker().await,
            StorageBackend::S3(s3) => Box::pin(s3.read_marker()).await,
        }
    }

    /// Writes the marker of `installation`, with `replace` over any other; false when another one stays.
    ///
    /// # Errors
    /// What the store answers.
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

    /// Every open multipart upload below Landfall's prefixes, or every temporary file. A store that cannot list
    /// multipart uploads has none; that is logged once.
    #[must_use]
    pub fn unfinished(&self) -> UnfinishedWritePages {
        match &self.backend {
            StorageBackend::Fs(fs) => fs.unfinished(),
            StorageBackend::S3(s3) => s3.unfinished(),
        }
    }

    /// Removes one of them; one that is gone counts as removed, and a multipart upload that cannot be aborted now is
    /// logged and left to the sweep.
    ///
    /// # Errors
    /// What the file system answers.
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

    /// Which staging an object of a bucket says it came from; none of others' objects, and in a folder.
    pub(crate) async fn origin(&self, key: &StorageKey) -> Result<Option<String>, StorageError> {
        match &self.backend {
            StorageBackend::Fs(_) => Ok(None),
            StorageBackend::S3(s3) => Box::pin(s3.origin(key)).await,
        }
    }

    /// The key an object has once it is set aside: in a bucket, where moving costs a copy, its own.
    pub(crate) fn aside(&self, key: &StorageKey) -> StorageKey {
        match &self.backend {
            StorageBackend::Fs(_) => key.orphaned(),
            StorageBackend::S3(_) => key.clone(),
        }
    }

    /// Moves an object to [`Self::aside`].
    pub(crate) async fn set_aside(&self, key: &StorageKey) -> Result<(), StorageError> {
        match &self.backend {
            StorageBackend::Fs(fs) => fs.set_aside(key).await,
            StorageBackend::S3(_) => Ok(()),
        }
    }
}
