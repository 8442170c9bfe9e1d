//! Storage in a folder.
//!
//! Guarantees: an object appears under its key atomically, by a link or a rename, after its bytes were synced; the
//! folders leading to it are synced before the call returns. Keys never lead out of the root.
//!
//! Configuration: `storage.path`, which API and workers must share.
//!
//! Implementation: the key is the path below the root. Files being copied are in `.landfall/` below the root, so one
//! folder contains everything a crash can leave there. A file staged on the same file system is linked, not copied;
//! staging keeps its own name for it until the commit.
//!
//! Considerations: empty folders are kept, because removing them would race with new files. Symbolic links below the
//! root are followed: whoever may create them there is trusted. On a file system without hard links files are copied
//! and renamed, and only the database keeps two writers of one key apart.

mod link;
mod list;
mod store;

use crate::{
    digest::Sha256Digest,
    fs_io::{
        fsync::{DurableFolder, DurableFolders, blocking},
        read::stream_file,
    },
    installation::{Marker, marker},
    storage::{
        ObjectInfo, ObjectPages, ObjectStream, PROBES, PutRequest, StorageError, StorageKey,
        UnfinishedWrite, UnfinishedWritePages,
    },
};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt, stream};
pub(crate) use link::LinkOutcome;
use std::{
    fs::{self, File, Metadata},
    io,
    ops::Range,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio_util::io::StreamReader;
use uuid::Uuid;

/// The folder of temporary files; because of its leading dot it cannot be part of a key.
const TEMPORARY: &str = ".landfall";

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct FsStorage {
    folders: DurableFolders,
    temporary: PathBuf,
}

/// A file that is being written, and that is removed unless it becomes an object.
#[derive(Debug)]
pub(crate) struct TemporaryFile {
    pub(crate) file: File,
    path: PathBuf,
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        // After a rename the file no longer exists; if it cannot be removed now, the sweep removes it.
        let _ = fs::remove_file(&self.path);
    }
}

impl FsStorage {
    pub(crate) async fn open(root: PathBuf) -> Result<Self, StorageError> {
        let make = async {
            let folders = DurableFolders::open(root).await?;
            let temporary = folders.root().join(TEMPORARY);
            folders.folder(&temporary).await?;
            Ok(Self { folders, temporary })
        };
        make.await.map_err(StorageError::io("be made"))
    }

    /// The device that storage is on.
    pub(crate) async fn device(&self) -> Result<u64, StorageError> {
        let root = self.folders.root().to_owned();
        blocking(move || fs::metadata(root))
            .await
            .map(|metadata| metadata.dev())
            .map_err(StorageError::io("be looked at"))
    }

    fn path(&self, key: &StorageKey) -> PathBuf {
        self.folders.root().join(key.as_str())
    }

    /// Returns the path of the object and its folder, which is created.
    async fn place(&self, key: &StorageKey) -> Result<(PathBuf, Arc<DurableFolder>), StorageError> {
        let path = self.path(key);
        let parent = path.parent().unwrap_or(self.folders.root());
        let folder = self
            .folders
            .folder(parent)
            .await
            .map_err(StorageError::io("create a folder for an object"))?;
        Ok((path, folder))
    }

    /// Creates a temporary file.
    pub(crate) async fn temporary(&self) -> Result<TemporaryFile, StorageError> {
        let path = self.temporary.join(Uuid::now_v7().to_string());
        let require_marker = self.folders.require_marker();
        blocking(move || {
            require_marker()?;
            Ok(TemporaryFile {
                file: File::create_new(&path)?,
                path,
            })
        })
        .await
        .map_err(StorageError::io("make a file"))
    }

    /// Links a file with this digest and size, whose bytes are synced, to the key, and verifies the link. `check` runs
    /// first, in the same call to a blocking thread. Safe to repeat.
    ///
    /// # Errors
    /// [`StorageError::KeyTaken`] when there are other bytes and `overwrite` is false, and errors of `check`.
    pub(crate) async fn link_if<E: From<StorageError> + Send + 'static>(
        &self,
        from: PathBuf,
        key: &StorageKey,
        content: (Sha256Digest, u64),
        overwrite: bool,
        check: impl FnOnce() -> Result<(), E> + Send + 'static,
    ) -> Result<LinkOutcome, E> {
        let (to, folder) = self.place(key).await?;
        let target = to.clone();
        let spare = overwrite.then(|| self.temporary.join(Uuid::now_v7().to_string()));
        let linking = tokio::task::spawn_blocking(move || {
            check()?;
            Ok::<_, E>(link::by_link(&from, &target, content, spare.as_deref()))
        });
        let linked = linking.await.map_err(io::Error::other);
        let linked = linked.map_err(StorageError::io("link a file"))??;
        let linked = linked
            .inspect_err(|error| self.forget_missing(&to, error))
            .map_err(StorageError::io("link a file"))?
            .ok_or(StorageError::KeyTaken)?;
        folder
            .sync()
            .await
            .map_err(StorageError::io("sync a folder"))?;
        Ok(linked)
    }

    /// Publishes a temporary file under its key once its bytes are synced; otherwise like [`Self::link_if`].
    pub(crate) async fn publish(
        &self,
        temporary: TemporaryFile,
        key: &StorageKey,
        content: (Sha256Digest, u64),
        overwrite: bool,
    ) -> Result<(), StorageError> {
        let temporary = blocking(move || temporary.file.sync_all().map(|()| temporary))
            .await
            .map_err(StorageError::io("sync a file"))?;
        let link = self.link_if(temporary.path.clone(), key, content, overwrite, || Ok(()));
        if link.await? != LinkOutcome::Impossible {
            // The guard removes the second name.
            return Ok(());
        }
        let (to, folder) = self.place(key).await?;
        blocking(move || link::by_rename(&temporary.path, &to, content, overwrite))
            .await
            .map_err(StorageError::io("rename a file"))?
            .ok_or(StorageError::KeyTaken)?;
        folder
            .sync()
            .await
            .map_err(StorageError::io("sync a folder"))
    }

    fn forget_missing(&self, path: &Path, error: &io::Error) {
        if let (io::ErrorKind::NotFound, Some(parent)) = (error.kind(), path.parent()) {
            self.folders.forget(parent);
        }
    }

    pub(crate) async fn head(&self, key: &StorageKey) -> Result<Option<ObjectInfo>, StorageError> {
        let path = self.path(key);
        match blocking(move || fs::metadata(path)).await {
            Ok(metadata) if metadata.is_file() => Ok(Some(ObjectInfo {
                size: metadata.len(),
                etag: None,
                sha256: None,
                modified: modified(&metadata),
            })),
            Ok(_) => Ok(None),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(StorageError::io("check for a file")(error)),
        }
    }

    pub(crate) async fn read(
        &self,
        key: &StorageKey,
        range: Option<Range<u64>>,
    ) -> Result<ObjectStream, StorageError> {
        let path = self.path(key);
        let opened = blocking(move || {
            let file = File::open(path)?;
            let metadata = file.metadata()?;
            if !metadata.is_file() {
                return Err(io::ErrorKind::NotFound.into());
            }
            Ok((file, metadata.len()))
        });
        let (file, size) = opened.await.map_err(|error| match is_absent(&error) {
            true => StorageError::NotFound,
            false => StorageError::io("open a file")(error),
        })?;
        let range = range.unwrap_or(0..size);
        let bytes = stream_file(file, range.start..range.end.min(size));
        Ok(bytes.map_err(StorageError::io("read a file")).boxed())
    }

    pub(crate) async fn delete(&self, key: &StorageKey) -> Result<(), StorageError> {
        let (path, require_marker) = (self.path(key), self.folders.require_marker());
        let remove = move || {
            require_marker()?;
            fs::remove_file(path)
        };
        match blocking(remove).await {
            Ok(()) => {}
            Err(error) if is_absent(&error) => return Ok(()),
            Err(error) => return Err(StorageError::io("delete a file")(error)),
        }
        // Without this, a power cut could restore an object whose row says that it was deleted.
        let (_, folder) = self.place(key).await?;
        folder
            .sync()
            .await
            .map_err(StorageError::io("sync a folder"))
    }

    pub(crate) fn list(&self, prefix: &str) -> ObjectPages {
        list::pages(self.folders.root().to_owned(), prefix.to_owned())
    }

    pub(crate) fn expect_marker(&self, installation: Uuid) {
        self.folders.expect(installation);
    }

    pub(crate) async fn marker(&self) -> Result<Option<Marker>, StorageError> {
        let root = self.folders.root().to_owned();
        blocking(move || marker::read_in(&root))
            .await
            .map_err(StorageError::io("read the installation's marker"))
    }

    pub(crate) async fn write_marker(
        &self,
        installation: Uuid,
        replace: bool,
    ) -> Result<bool, StorageError> {
        let root = self.folders.root().to_owned();
        blocking(move || marker::write_in(&root, installation, replace))
            .await
            .map_err(StorageError::io("write the installation's marker"))
    }

    pub(crate) async fn probe(&self) -> Result<(), StorageError> {
        let name = format!("{PROBES}{}", Uuid::now_v7());
        let key: StorageKey = name.parse().map_err(|_| StorageError::NotFound)?;
        let content = Bytes::from(name.clone());
        let request = PutRequest {
            key: &key,
            content_type: "text/plain",
            origin: &name,
            size: content.len() as u64,
            overwrite: false,
        };
        let bytes = stream::iter([Ok(content.clone())]).boxed();
        self.put_stream(request, bytes).await?;
        let read = StreamReader::new(self.read(&key, None).await?.map_err(io::Error::other));
        let mut found = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut std::pin::pin!(read), &mut found)
            .await
            .map_err(StorageError::io("read a file"))?;
        self.delete(&key).await?;
        if found != content {
            return Err(StorageError::NotAsSent(
                "other bytes were read back".to_owned(),
            ));
        }
        Ok(())
    }

    /// Creates and removes a file: a missing folder or a read-only disk can still be inspected without error.
    pub(crate) async fn health(&self) -> Result<(), StorageError> {
        self.temporary().await.map(drop)
    }

    /// Lists the temporary files, in one page: there are only as many as copies in progress, and leftovers of crashes.
    pub(crate) fn unfinished(&self) -> UnfinishedWritePages {
        let temporary = self.temporary.clone();
        let list = async move {
            blocking(move || list::temporary(&temporary))
                .await
                .map_err(StorageError::io("list temporary files"))
        };
        stream::once(list).boxed()
    }

    pub(crate) async fn remove_unfinished(
        &self,
        unfinished: &UnfinishedWrite,
    ) -> Result<(), StorageError> {
        let path = self.temporary.join(&unfinished.id);
        let require_marker = self.folders.require_marker();
        blocking(move || {
            require_marker()?;
            remove_if_there(&path)
        })
        .await
        .map_err(StorageError::io("remove temporary files"))
    }

    /// Moves an object below `orphaned/`; it is durable in its new location before it is removed from the old one.
    pub(crate) async fn set_aside(&self, key: &StorageKey) -> Result<(), StorageError> {
        let (to, folder) = self.place(&key.orphaned()).await?;
        let from = self.path(key);
        blocking(move || fs::rename(from, to))
            .await
            .map_err(StorageError::io("move an object aside"))?;
        folder
            .sync()
            .await
            .map_err(StorageError::io("sync a folder"))
    }
}

/// Whether the file does not exist, or a parent is a file instead of a folder.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if !is_absent(&error) => Err(error),
        _ => Ok(()),
    }
}

pub(crate) fn modified(metadata: &Metadata) -> DateTime<Utc> {
    metadata
        .modified()
        .map_or(DateTime::UNIX_EPOCH, DateTime::from)
}
