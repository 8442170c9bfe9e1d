//! Durable directory entries: folders are created durably, and concurrent callers share their fsyncs.
//!
//! A new file is only guaranteed to be found after a crash once its directory was synced (fsync(2): "an explicit
//! fsync() on a file descriptor for the directory is also needed"). Many small files that arrive together share that
//! sync: callers that arrive while a sync runs wait for the next one, which one of them runs for all.
//!
//! Once the installation is known, a root without its marker is not used: a folder is opened or created only while the
//! marker is visible, and a sync also fails when the path leads to another folder by then. So nothing is acknowledged
//! that was written beneath an unmounted volume.

use crate::installation::marker;
use std::{
    collections::{BTreeSet, HashMap},
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tokio::sync;
use uuid::Uuid;

/// Maximum number of open folders, in addition to those in use.
const MAX_OPEN_FOLDERS: usize = 256;

/// Runs blocking file I/O on a thread where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        // Only a panic or the end of the runtime leads here.
        Err(lost) => Err(io::Error::other(lost)),
    }
}

/// The folders below one root, created and opened on first use.
#[derive(Debug)]
pub(crate) struct DurableFolders {
    root: PathBuf,
    open: Mutex<HashMap<PathBuf, Arc<DurableFolder>>>,
    installation: OnceLock<Uuid>,
}

impl DurableFolders {
    /// Creates the root and its parents durably.
    pub(crate) async fn open(root: PathBuf) -> io::Result<Self> {
        let root = blocking(move || {
            let root = std::path::absolute(root)?;
            make(&root)?;
            Ok(root)
        })
        .await?;
        Ok(Self {
            root,
            open: Mutex::default(),
            installation: OnceLock::new(),
        })
    }

    /// From now on, requires the root to have the marker of this installation.
    pub(crate) fn expect(&self, installation: Uuid) {
        let _ = self.installation.set(installation);
    }

    /// Fails if the root must have a marker and does not. Blocks.
    pub(crate) fn require_marker(&self) -> impl FnOnce() -> io::Result<()> + Send + 'static {
        let (root, installation) = (self.root.clone(), self.installation.get().copied());
        move || match installation {
            Some(id) => marker::require_in(&root, id),
            None => Ok(()),
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the folder `path` below the root, creating it and its parents if needed.
    pub(crate) async fn folder(&self, path: &Path) -> io::Result<Arc<DurableFolder>> {
        if let Some(known) = self.lock().get(path)
            && !known.replaced.load(Ordering::Relaxed)
        {
            return Ok(Arc::clone(known));
        }
        let (wanted, require_marker) = (path.to_owned(), self.require_marker());
        let folder = blocking(move || {
            require_marker()?;
            make(&wanted)?;
            Ok(DurableFolder::new(File::open(&wanted)?, wanted))
        })
        .await?;
        let mut open = self.lock();
        if open.len() >= MAX_OPEN_FOLDERS {
            open.retain(|_, folder| Arc::strong_count(folder) > 1);
        }
        if open
            .get(path)
            .is_some_and(|known| known.replaced.load(Ordering::Relaxed))
        {
            open.remove(path);
        }
        // It may have been opened twice concurrently; all callers must share one.
        let folder = open
            .entry(path.to_owned())
            .or_insert_with(|| Arc::new(folder));
        Ok(Arc::clone(folder))
    }

    /// Must be called when a folder was found to be missing, so that the next use creates it again.
    pub(crate) fn forget(&self, path: &Path) {
        self.lock().remove(path);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, Arc<DurableFolder>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Creates a folder with its missing parents. Each parent is synced even if the folder existed: another process may
/// have created it a moment ago and died before its own sync.
fn make(path: &Path) -> io::Result<()> {
    let Some(parent) = path.parent() else {
        return Ok(());
    };
    if !path.is_dir() {
        make(parent)?;
        match fs::create_dir(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    match File::open(parent) {
        Ok(folder) => sync_folder(&folder, parent),
        // A parent that can be traversed but not read was not created by this process.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(error) => Err(error),
    }
}

/// Syncs the entries of a folder. If the file system does not support that (EINVAL on CIFS, vboxsf and some FUSE file
/// systems), the entries become durable whenever the file system writes them back; this is logged once.
fn sync_folder(folder: &File, path: &Path) -> io::Result<()> {
    match folder.sync_all() {
        Err(error) if is_not_supported(&error) => {
            warn_unsynced(path, &error);
            Ok(())
        }
        outcome => outcome,
    }
}

/// Whether the file system does not support an operation, as opposed to failing at it.
pub(crate) fn is_not_supported(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
    )
}

fn warn_unsynced(path: &Path, error: &io::Error) {
    static WARNED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let file_system = file_system_of(path);
    let mut warned = WARNED.lock().unwrap_or_else(PoisonError::into_inner);
    if !warned.contains(&file_system) {
        tracing::warn!(
            %error,
            "the file system {file_system} cannot sync folders: files acknowledged in the last seconds before a \
             power cut may be missing after it",
        );
        warned.insert(file_system);
    }
}

/// Returns the type and mount point of the file system of a path, such as `cifs at /mnt/nas` (proc_pid_mountinfo(5)).
fn file_system_of(path: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let point = before.split(' ').nth(4)?.replace("\\040", " ");
        let kind = after.split(' ').next()?;
        path.starts_with(&point)
            .then(|| (point.len(), format!("{kind} at {point}")))
    };
    // Of two mounts at the same point, the later one covers the other.
    let found = mounts
        .lines()
        .filter_map(mount)
        .max_by_key(|(length, _)| *length);
    found.map_or_else(|| format!("of {}", path.display()), |(_, name)| name)
}

/// Makes the entries of a folder durable, where its file system supports it. Blocks.
///
/// # Errors
/// File system errors, except when it does not support syncing folders.
pub fn sync_folder_at(path: &Path) -> io::Result<()> {
    sync_folder(&File::open(path)?, path)
}

/// Fails when the path leads to another folder than the open one: the volume was unmounted or mounted meanwhile, and
/// what was just written via the path is somewhere else.
fn require_same(handle: &File, path: &Path) -> io::Result<()> {
    let (open, there) = (handle.metadata()?, fs::metadata(path)?);
    if (open.dev(), open.ino()) == (there.dev(), there.ino()) {
        return Ok(());
    }
    Err(io::Error::other(
        "the folder was unmounted or replaced while it was written to",
    ))
}

/// An open folder and its pending syncs.
#[derive(Debug)]
pub(crate) struct DurableFolder {
    handle: Arc<File>,
    path: Arc<Path>,
    /// Whether the path was found to lead to another folder.
    replaced: AtomicBool,
    arrivals: AtomicU64,
    done: sync::Mutex<SyncState>,
}

/// Up to which arrival the entries are durable, and which arrivals the last failed sync covered.
#[derive(Debug, Default)]
struct SyncState {
    through: u64,
    failed_through: u64,
    error: Option<i32>,
}

impl DurableFolder {
    fn new(handle: File, path: PathBuf) -> Self {
        Self {
            handle: Arc::new(handle),
            path: path.into(),
            replaced: AtomicBool::new(false),
            arrivals: AtomicU64::new(0),
            done: sync::Mutex::default(),
        }
    }

    /// Makes every entry durable that was created before the call.
    pub(crate) async fn sync(&self) -> io::Result<()> {
        let ticket = self.arrivals.fetch_add(1, Ordering::SeqCst) + 1;
        // The lock is fair, so all waiters arrived while a sync was running: the first of them syncs for all.
        let mut done = self.done.lock().await;
        if done.failed_through >= ticket {
            // Linux reports a failed sync once; a second sync would succeed and prove nothing.
            return Err(done.error.map_or_else(
                || io::Error::other("a folder could not be synced"),
                io::Error::from_raw_os_error,
            ));
        }
        if done.through >= ticket {
            return Ok(());
        }
        let through = self.arrivals.load(Ordering::SeqCst);
        let (handle, path) = (Arc::clone(&self.handle), Arc::clone(&self.path));
        let synced = blocking(move || {
            sync_folder(&handle, &path)?;
            Ok(require_same(&handle, &path))
        });
        match synced.await {
            Ok(Ok(())) => {
                done.through = through;
                Ok(())
            }
            Ok(Err(elsewhere)) => {
                done.failed_through = through;
                done.error = None;
                self.replaced.store(true, Ordering::Relaxed);
                Err(elsewhere)
            }
            Err(error) => {
                done.failed_through = through;
                done.error = error.raw_os_error();
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::try_join_all;
    use tempfile::TempDir;

    #[tokio::test]
    async fn folders_are_made_with_their_parents_and_kept_open() {
        let root = TempDir::new().unwrap();
        let folders = DurableFolders::open(root.path().join("a/b")).await.unwrap();
        let deep = folders.root().join("2026/11");
        let first = folders.folder(&deep).await.unwrap();
        assert!(deep.is_dir());
        assert!(Arc::ptr_eq(&first, &folders.folder(&deep).await.unwrap()));
        fs::remove_dir(&deep).unwrap();
        folders.forget(&deep);
        folders.folder(&deep).await.unwrap();
        assert!(deep.is_dir());
    }

    #[tokio::test]
    async fn folder_that_is_replaced_fails_its_sync_and_is_opened_again() {
        let parent = TempDir::new().unwrap();
        let root = parent.path().join("root");
        let folders = DurableFolders::open(root.clone()).await.unwrap();
        let before = folders.folder(&root).await.unwrap();
        fs::rename(&root, parent.path().join("away")).unwrap();
        fs::create_dir(&root).unwrap();
        before.sync().await.unwrap_err();
        let after = folders.folder(&root).await.unwrap();
        after.sync().await.unwrap();
    }

    #[tokio::test]
    async fn root_without_the_marker_is_neither_made_nor_opened() {
        let parent = TempDir::new().unwrap();
        let root = parent.path().join("root");
        let folders = DurableFolders::open(root.clone()).await.unwrap();
        let id = Uuid::now_v7();
        folders.expect(id);
        let deep = root.join("uploads");
        folders.folder(&deep).await.unwrap_err();
        assert!(!deep.exists());
        fs::create_dir_all(&root).unwrap();
        marker::write_in(&root, id, false).unwrap();
        folders.folder(&deep).await.unwrap();
        assert!(deep.exists());
    }

    #[tokio::test]
    async fn those_who_wait_share_a_sync_and_none_is_forgotten() {
        let root = TempDir::new().unwrap();
        let folders = DurableFolders::open(root.path().to_owned()).await.unwrap();
        let folder = folders.folder(folders.root()).await.unwrap();
        try_join_all((0..500).map(|_| folder.sync())).await.unwrap();
        let done = folder.done.lock().await;
        assert_eq!((done.through, done.failed_through), (500, 0));
    }

    #[test]
    fn a_path_is_on_the_file_system_with_the_longest_mount_point() {
        assert_eq!(file_system_of(Path::new("/proc/self")), "proc at /proc");
    }

    #[tokio::test]
    async fn a_failed_sync_fails_for_all_it_was_for_and_for_nobody_later() {
        let root = TempDir::new().unwrap();
        let folder = DurableFolder::new(File::open(root.path()).unwrap(), root.path().to_owned());
        {
            let mut done = folder.done.lock().await;
            (done.failed_through, done.error) = (1, Some(5));
        }
        assert_eq!(folder.sync().await.unwrap_err().raw_os_error(), Some(5));
        folder.sync().await.unwrap();
    }
}
