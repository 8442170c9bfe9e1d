//! What storage needs of a backend.
//!
//! Adding a backend takes its own folder with an implementation of [`Store`], its settings in [`crate::config`], and a
//! line in [`open`]. Transfers work over any store; a backend that can do better than receive a stream has a path of
//! its own in [`crate::transfer`]. Every implementation must pass the conformance suites in `core/tests/it`, which run
//! over each of them.

use super::{
    Capability, CredentialsInfo, ObjectInfo, ObjectPages, ObjectStream, S3Timeouts, StorageError,
    StorageKey, UnfinishedWrite, UnfinishedWritePages, UrlOptions, fs::FsStorage, s3::S3Storage,
};
use crate::{
    config::{Backend, StorageConfig},
    installation::Marker,
};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use std::{any::Any, fmt, ops::Range, sync::Arc};
use url::Url;
use uuid::Uuid;

/// The outcome of a call, later.
pub type StoreFuture<'a, T> = BoxFuture<'a, Result<T, StorageError>>;

/// An object to be put.
#[derive(Clone, Copy, Debug)]
pub struct PutRequest<'a> {
    pub key: &'a StorageKey,
    /// A complete media type.
    pub content_type: &'a str,
    /// Distinguishes the runs of one file from those of all others.
    pub origin: &'a str,
    /// In bytes.
    pub size: u64,
    /// Replace an existing object.
    pub overwrite: bool,
}

/// A backend of storage. The guarantees of [the module](super) are those of its implementations.
pub trait Store: Any + fmt::Debug + Send + Sync {
    /// Puts an object of any size. If the stream ends with an error, that error is returned and no object appears.
    /// Safe to repeat: an object that an earlier call with the same origin has put is no other writer's.
    ///
    /// # Errors
    /// [`StorageError::KeyTaken`] when another writer's object exists at the key, errors of the stream and the store.
    fn put<'a>(
        self: Arc<Self>,
        request: PutRequest<'a>,
        bytes: ObjectStream,
    ) -> StoreFuture<'a, ()>;

    /// Returns the metadata of an object; `None` if it does not exist.
    ///
    /// # Errors
    /// Errors of the store, except that the object does not exist.
    fn head<'a>(&'a self, key: &'a StorageKey) -> StoreFuture<'a, Option<ObjectInfo>>;

    /// Reads an object, or a range of it; a range that extends beyond the end is truncated.
    ///
    /// # Errors
    /// [`StorageError::NotFound`], and errors of the store.
    fn read<'a>(
        &'a self,
        key: &'a StorageKey,
        range: Option<Range<u64>>,
    ) -> StoreFuture<'a, ObjectStream>;

    /// Deletes an object; succeeds if it does not exist.
    ///
    /// # Errors
    /// Errors of the store.
    fn delete<'a>(&'a self, key: &'a StorageKey) -> StoreFuture<'a, ()>;

    /// [`Self::delete`] that is never sent twice. To be implemented where a request may be carried out after the call.
    ///
    /// # Errors
    /// As [`Self::delete`]; after [`StorageError::NoAnswer`] the store may still delete the object at any time.
    fn delete_once<'a>(&'a self, key: &'a StorageKey) -> StoreFuture<'a, ()> {
        self.delete(key)
    }

    /// Lists the objects whose keys start with `prefix`, in pages.
    fn list(self: Arc<Self>, prefix: &str) -> ObjectPages;

    /// The startup check: uses every operation once, and finds out what the store supports.
    ///
    /// # Errors
    /// The first problem found.
    fn probe(self: Arc<Self>) -> StoreFuture<'static, ()>;

    /// What is known of the abilities that not every store has; complete after the startup check.
    fn capabilities(&self) -> Vec<Capability> {
        Vec::new()
    }

    /// Where the credentials that are used now come from; `None` if there are none.
    ///
    /// # Errors
    /// [`StorageError::Setting`] when they cannot be had.
    fn credentials(&self) -> StoreFuture<'_, Option<CredentialsInfo>> {
        async { Ok(None) }.boxed()
    }

    /// Checks whether the store responds.
    ///
    /// # Errors
    /// Why it does not.
    fn health(&self) -> StoreFuture<'_, ()>;

    /// From now on nothing is written to or deleted from a location without the marker of this installation.
    fn expect_marker(&self, installation: Uuid);

    /// Reads the marker of this location; `None` if there is none.
    ///
    /// # Errors
    /// Errors of the store.
    fn marker(&self) -> StoreFuture<'_, Option<Marker>>;

    /// Writes the marker of `installation`, overwriting any other if `replace` is set. Returns false when another
    /// marker was kept.
    ///
    /// # Errors
    /// Errors of the store.
    fn write_marker(&self, installation: Uuid, replace: bool) -> StoreFuture<'_, bool>;

    /// The URL at which a browser can download the object; `None` where Landfall serves it.
    ///
    /// # Errors
    /// [`StorageError::Setting`] when no URL can be made with the settings.
    fn url<'a>(
        &'a self,
        _key: &'a StorageKey,
        _options: UrlOptions<'a>,
    ) -> StoreFuture<'a, Option<Url>> {
        async { Ok(None) }.boxed()
    }

    /// Whether the location may be missing now and be mounted later.
    fn is_mountable(&self) -> bool {
        false
    }

    /// Whether the objects of other programs may be in the same place. Then only those with an [origin](Self::origin)
    /// belong to Landfall.
    fn is_shared(&self) -> bool {
        false
    }

    /// Returns the origin that an object names; `None` if it names none, does not exist, or origins are not kept.
    ///
    /// # Errors
    /// Errors of the store.
    fn origin<'a>(&'a self, _key: &'a StorageKey) -> StoreFuture<'a, Option<String>> {
        async { Ok(None) }.boxed()
    }

    /// Lists the writes in progress and the remains of interrupted ones, in pages.
    fn unfinished(self: Arc<Self>) -> UnfinishedWritePages {
        stream::empty().boxed()
    }

    /// Removes an unfinished write; a missing one counts as removed.
    ///
    /// # Errors
    /// Errors of the store.
    fn remove_unfinished<'a>(&'a self, _unfinished: &'a UnfinishedWrite) -> StoreFuture<'a, ()> {
        async { Ok(()) }.boxed()
    }

    /// The key of an object once it is set aside: its own where moving would take a copy.
    fn orphaned_key(&self, key: &StorageKey) -> StorageKey {
        key.clone()
    }

    /// Moves an object to [`Self::orphaned_key`].
    ///
    /// # Errors
    /// Errors of the store.
    fn set_aside<'a>(&'a self, _key: &'a StorageKey) -> StoreFuture<'a, ()> {
        async { Ok(()) }.boxed()
    }
}

/// Opens the configured store: the list of all backends.
pub(super) async fn open(
    config: &StorageConfig,
    timeouts: S3Timeouts,
) -> Result<Arc<dyn Store>, StorageError> {
    Ok(match config.backend {
        Backend::Fs => Arc::new(FsStorage::open(config.path.join(&config.prefix)).await?),
        Backend::S3 => Arc::new(S3Storage::open(config, timeouts)),
    })
}
