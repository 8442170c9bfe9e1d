//! Staging in a folder.
//!
//! Guarantees: whatever a call reports as staged has been synced, both the file and its directory entry. A body that
//! fails leaves nothing behind with [`FsStaging::write`], and everything that came before the failure with
//! [`FsStaging::append`]. Each file has a single writer and is written sequentially: nothing is ever overwritten or
//! truncated.
//!
//! Configuration: `staging.path`, which API and workers must share; `staging.quota`, `staging.min_free`,
//! `staging.direct_io`.
//!
//! Implementation: one file per segment, all in one folder, so that concurrent writers share its sync and no folders
//! need to be created or removed. Each file is synced individually. Large bodies bypass the page cache (see
//! [`crate::fs_io::direct_io`]); otherwise the kernel is told to start writing them while they are received.
//!
//! Considerations: one folder holds all staged files; ext4 and XFS index it. If the folder is on another file system
//! than storage, finalize copies instead of linking.

mod sink;

use super::{
    AppendOutcome, ListedStaging, StagedBody, StagingError, StagingKey, StagingPages,
    StagingStream, WriteOptions,
    body::{BodyReader, BoxBody},
    capacity::{Capacity, StagingShortage},
    hashes::Hasher,
};
use crate::{
    config,
    fs_io::{
        direct_io::BufferPool,
        fsync::{DurableFolder, DurableFolders, blocking},
        read::{fill, stream_file},
    },
    installation::{Marker, marker},
    storage::{
        PAGE,
        fs::{modified, remove_if_there},
    },
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use sink::{FileSink, SinkTarget};
use std::{
    fs::{self, File},
    io::{self, Seek, SeekFrom},
    ops::Range,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::mpsc;
use uuid::Uuid;

/// Maximum age of the measured usage when the quota is checked.
const MAX_USAGE_AGE: Duration = Duration::from_secs(5);

/// The file that a health check creates and removes.
const HEALTH_FILE: &str = ".health";

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct FsStaging {
    folders: DurableFolders,
    capacity: Arc<Capacity>,
    /// Buffers for large bodies; `None` when direct I/O is disabled.
    buffers: Option<Arc<BufferPool>>,
}

impl FsStaging {
    pub(crate) async fn open(
        config: &config::StagingConfig,
        direct_io: bool,
    ) -> Result<Self, StagingError> {
        let folders = DurableFolders::open(config.path.clone())
            .await
            .map_err(StagingError::io("be made"))?;
        let folder = Some(folders.root().to_owned());
        let quota = config.quota.map(|quota| quota.0);
        let capacity = Capacity::new(quota, config.min_free.0, folder, MAX_USAGE_AGE);
        Ok(Self {
            folders,
            capacity: Arc::new(capacity),
            buffers: direct_io.then(Arc::default),
        })
    }

    /// Whether large files bypass the page cache.
    pub(crate) fn is_direct(&self) -> bool {
        self.buffers.is_some()
    }

    pub(crate) fn path(&self, key: StagingKey) -> PathBuf {
        self.folders.root().join(key.to_string())
    }

    async fn folder(&self) -> Result<Arc<DurableFolder>, StagingError> {
        self.folders
            .folder(self.folders.root())
            .await
            .map_err(StagingError::io("be opened"))
    }

    fn sink(&self, key: StagingKey, target: SinkTarget, options: &WriteOptions<'_>) -> FileSink {
        let hasher = Hasher::new(options.hashes, options.running);
        let (capacity, buffers) = (Arc::clone(&self.capacity), self.buffers.clone());
        let held = options.holds.cloned();
        FileSink::new(self.path(key), target, hasher, capacity, buffers, held)
    }

    pub(crate) async fn admit(&self, options: &WriteOptions<'_>) -> Result<(), StagingError> {
        let expected = options.expected.unwrap_or(0);
        if expected > 0 {
            // A body that does not fit is rejected before it is sent.
            self.capacity.check_free(expected)?;
        }
        self.capacity.admit(expected, self.measure()).await
    }

    pub(crate) async fn write(
        &self,
        key: StagingKey,
        body: BoxBody<'_>,
        options: &WriteOptions<'_>,
    ) -> Result<StagedBody, StagingError> {
        self.admit(options).await?;
        let folder = self.folder().await?;
        let sink = self.sink(key, SinkTarget::New, options);
        let written = sink.take(BodyReader::new(body, options.limit)).await?;
        if let Some(error) = written.stopped {
            return Err(self.missing_folder(error));
        }
        folder.sync().await.map_err(StagingError::io("be synced"))?;
        let size = written.sink.written();
        let hashes = written.sink.keep();
        Ok(StagedBody { size, hashes })
    }

    /// Appends to a segment of `length` bytes; at 0 the segment is created.
    pub(crate) async fn append(
        &self,
        key: StagingKey,
        length: u64,
        body: BoxBody<'_>,
        options: &WriteOptions<'_>,
    ) -> Result<AppendOutcome, StagingError> {
        self.admit(options).await?;
        let begins = length == 0;
        let folder = self.folder().await?;
        let target = match begins {
            true => SinkTarget::New,
            false => SinkTarget::Append { length },
        };
        let sink = self.sink(key, target, options);
        let mut written = sink.take(BodyReader::new(body, options.limit)).await?;
        let more = written.sink.written();
        let running = written.sink.take_running();
        let (hashes, stopped) = match (more, written.stopped) {
            // Nothing could be written. The file, if created, is removed with the sink.
            (0, Some(error @ StagingError::Gone)) if begins => {
                return Err(self.missing_folder(error));
            }
            (
                0,
                Some(
                    error @ (StagingError::Gone
                    | StagingError::Exists
                    | StagingError::WrongLength { .. }),
                ),
            ) => return Err(error),
            (0, stopped) if begins => (written.sink.hashes(), stopped),
            (_, stopped) => {
                if begins {
                    folder.sync().await.map_err(StagingError::io("be synced"))?;
                }
                (written.sink.keep(), stopped)
            }
        };
        Ok(AppendOutcome {
            length: length + more,
            hashes,
            running,
            stopped,
        })
    }

    /// If a new file finds no folder, the folder was removed; the next write creates it again.
    fn missing_folder(&self, error: StagingError) -> StagingError {
        match error {
            StagingError::Gone => {
                self.folders.forget(self.folders.root());
                StagingError::Io {
                    action: "be found",
                    source: io::ErrorKind::NotFound.into(),
                }
            }
            other => other,
        }
    }

    pub(crate) async fn len(&self, key: StagingKey) -> Result<Option<u64>, StagingError> {
        let path = self.path(key);
        match blocking(move || fs::metadata(path)).await {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StagingError::io("check for a file")(error)),
        }
    }

    pub(crate) async fn read(
        &self,
        key: StagingKey,
        range: Range<u64>,
    ) -> Result<StagingStream, StagingError> {
        let path = self.path(key);
        let file = blocking(move || File::open(path))
            .await
            .map_err(StagingError::io("open a file"))?;
        let bytes = stream_file(file, range);
        Ok(bytes.map_err(StagingError::io("read a file")).boxed())
    }

    /// In one call to a blocking thread, because this is called once for each small file.
    pub(crate) async fn head(
        &self,
        key: StagingKey,
        range: Range<u64>,
    ) -> Result<Bytes, StagingError> {
        let path = self.path(key);
        run_blocking("read a file", move || {
            let mut file = File::open(path).map_err(StagingError::io("open a file"))?;
            file.seek(SeekFrom::Start(range.start))
                .map_err(StagingError::io("seek"))?;
            let size = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            let mut head = Vec::new();
            fill(&mut file, &mut head, size).map_err(StagingError::io("read a file"))?;
            Ok(head.into())
        })
        .await
    }

    pub(crate) async fn delete(&self, keys: &[StagingKey]) -> Result<(), StagingError> {
        let paths: Vec<PathBuf> = keys.iter().map(|key| self.path(*key)).collect();
        let require_marker = self.folders.require_marker();
        // Not synced: if a power cut restores a file, the sweep deletes it again.
        blocking(move || {
            require_marker()?;
            paths.iter().try_for_each(|path| remove_if_there(path))
        })
        .await
        .map_err(StagingError::io("delete a file"))
    }

    pub(crate) fn list(&self) -> StagingPages {
        let (sender, receiver) = mpsc::channel(1);
        let root = self.folders.root().to_owned();
        tokio::task::spawn_blocking(move || {
            let mut page = Vec::new();
            let outcome = for_each_staged(&root, |staged| {
                page.push(staged);
                page.len() < PAGE || sender.blocking_send(Ok(std::mem::take(&mut page))).is_ok()
            });
            let last = match outcome {
                Err(error) => Err(StagingError::io("list files")(error)),
                Ok(()) if page.is_empty() => return,
                Ok(()) => Ok(page),
            };
            // The page is not needed if the receiver is gone.
            let _ = sender.blocking_send(last);
        });
        futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|page| (page, receiver))
        })
        .boxed()
    }

    /// Returns the disk usage of all staged files, in bytes.
    async fn measure(&self) -> Result<u64, StagingError> {
        let root = self.folders.root().to_owned();
        blocking(move || {
            let mut sum = 0;
            for_each_staged(&root, |staged| {
                sum += staged.allocated;
                true
            })?;
            Ok(sum)
        })
        .await
        .map_err(StagingError::io("list files"))
    }

    pub(crate) async fn usage(
        &self,
        max_age: Duration,
    ) -> Result<super::StagingUsage, StagingError> {
        self.capacity.usage(max_age, self.measure()).await
    }

    pub(crate) async fn shortage(&self) -> Result<Option<StagingShortage>, StagingError> {
        self.capacity.shortage(self.measure()).await
    }

    pub(crate) fn root(&self) -> &Path {
        self.folders.root()
    }

    /// Creates an empty file in the folder whose name is not a staging key, unless it exists.
    pub(crate) async fn mark(&self, name: &str) -> Result<(), StagingError> {
        let path = self.folders.root().join(name);
        blocking(move || {
            File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .open(path)
        })
        .await
        .map(drop)
        .map_err(StagingError::io("make a file"))
    }

    pub(crate) async fn has_mark(&self, name: &str) -> Result<bool, StagingError> {
        let path = self.folders.root().join(name);
        blocking(move || path.try_exists())
            .await
            .map_err(StagingError::io("check for a file"))
    }

    pub(crate) async fn unmark(&self, name: &str) -> Result<(), StagingError> {
        let path = self.folders.root().join(name);
        blocking(move || remove_if_there(&path))
            .await
            .map_err(StagingError::io("delete a file"))
    }

    pub(crate) fn expect_marker(&self, installation: Uuid) {
        self.folders.expect(installation);
    }

    pub(crate) async fn marker(&self) -> Result<Option<Marker>, StagingError> {
        let root = self.folders.root().to_owned();
        blocking(move || marker::read_in(&root))
            .await
            .map_err(StagingError::io("read the installation's marker"))
    }

    pub(crate) async fn write_marker(
        &self,
        installation: Uuid,
        replace: bool,
    ) -> Result<bool, StagingError> {
        let root = self.folders.root().to_owned();
        blocking(move || marker::write_in(&root, installation, replace))
            .await
            .map_err(StagingError::io("write the installation's marker"))
    }

    /// Writes, reads back and deletes a file.
    pub(crate) async fn probe(&self) -> Result<(), StagingError> {
        let key = StagingKey::generate();
        let content = Bytes::from(key.to_string());
        let body = futures::stream::iter([Ok(content.clone())]).boxed();
        let options = WriteOptions {
            limit: content.len() as u64,
            ..WriteOptions::default()
        };
        self.write(key, body, &options).await?;
        let read = self.read(key, 0..content.len() as u64).await?;
        let read: Result<Vec<Bytes>, _> = read.try_collect().await;
        self.delete(&[key]).await?;
        if read?.concat() != content {
            return Err(StagingError::io("read what was written")(io::Error::from(
                io::ErrorKind::InvalidData,
            )));
        }
        Ok(())
    }

    /// Creates and removes a file. It has a fixed name that is not a key, so a crash leaves at most one.
    pub(crate) async fn health(&self) -> Result<(), StagingError> {
        let path = self.folders.root().join(HEALTH_FILE);
        blocking(move || File::create(&path).and_then(|_| remove_if_there(&path)))
            .await
            .map_err(StagingError::io("take a file"))
    }
}

/// Runs blocking file I/O; `action` is used for the error if the thread is lost.
async fn run_blocking<T: Send + 'static>(
    action: &'static str,
    work: impl FnOnce() -> Result<T, StagingError> + Send + 'static,
) -> Result<T, StagingError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(lost) => Err(StagingError::io(action)(io::Error::other(lost))),
    }
}

/// Calls `take` for every staged file, until it returns false.
fn for_each_staged(root: &Path, mut take: impl FnMut(ListedStaging) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(key) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let metadata = match entry.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        let going_on = take(ListedStaging {
            key,
            // POSIX counts blocks of 512 bytes, whatever the block size of the file system.
            allocated: metadata.blocks() * 512,
            modified: modified(&metadata),
        });
        if !going_on {
            return Ok(());
        }
    }
    Ok(())
}
