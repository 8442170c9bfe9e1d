//! A power cut: of what processes wrote, only what they synced is left.
//!
//! Killing a process does not show this, because the page cache outlives it. A library preloaded into the processes
//! (`shim/power.c`) records each `fsync`; the cut restores the folder as it was synced: a file has the bytes of its
//! last sync, or none, and a folder the names of its last sync. This is stricter than most file systems, and as strict
//! as POSIX.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use tempfile::TempDir;

use crate::shim::compiled;

const LIBRARY: &str = include_str!("shim/power.c");

/// What processes synced, from the first one on that was started with
/// [`PowerCut::environment`] until [`PowerCut::cut`].
#[derive(Debug)]
pub struct PowerCut {
    notes: TempDir,
    library: PathBuf,
}

impl PowerCut {
    /// Builds the library.
    ///
    /// # Panics
    /// If there is no C compiler, or the system is not Linux.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it runs a compiler")]
    pub fn new() -> Self {
        let notes = tempfile::tempdir().expect("cannot make a temporary folder");
        let library = compiled(notes.path(), LIBRARY);
        fs::create_dir(notes.path().join("synced")).expect("cannot make a folder");
        Self { notes, library }
    }

    /// What to start a process with, so that its syncs are noted.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let text = |path: &Path| path.display().to_string();
        vec![
            ("LD_PRELOAD".to_owned(), text(&self.library)),
            ("LANDFALL_TEST_SYNCED".to_owned(), text(&self.synced())),
        ]
    }

    /// As if the processes did not sync files or folders of which the paths contain `part`: `kind`
    /// is `file` or `folder`.
    #[must_use]
    pub fn unsynced(kind: &str, part: &str) -> (String, String) {
        let value = format!("{kind}:{part}");
        ("LANDFALL_TEST_UNSYNCED".to_owned(), value)
    }

    fn synced(&self) -> PathBuf {
        self.notes.path().join("synced")
    }

    /// Puts a folder back as it was synced. The processes must have been killed.
    ///
    /// # Panics
    /// If it cannot.
    pub fn cut(self, root: &Path) {
        let after = tempfile::tempdir_in(root.parent().expect("a folder is in another"))
            .expect("cannot make a temporary folder");
        let mut left = SyncedFiles {
            synced: self.synced(),
            files: HashMap::new(),
        };
        left.folder(&inode(root), after.path());
        for entry in fs::read_dir(root).expect("the folder can be read") {
            let path = entry.expect("an entry").path();
            let removed = match path.is_dir() {
                true => fs::remove_dir_all(&path),
                false => fs::remove_file(&path),
            };
            removed.expect("it can be removed");
        }
        for entry in fs::read_dir(after.path()).expect("the folder can be read") {
            let entry = entry.expect("an entry");
            fs::rename(entry.path(), root.join(entry.file_name())).expect("it can be moved");
        }
    }
}

/// As `power.c` names it.
fn inode(path: &Path) -> String {
    let metadata = fs::metadata(path).expect("the folder is there");
    let born = metadata
        .created()
        .expect("the file system keeps times of birth");
    let born = born
        .duration_since(UNIX_EPOCH)
        .expect("born after the epoch");
    format!(
        "{}.{}.{}",
        metadata.ino(),
        born.as_secs(),
        born.subsec_nanos()
    )
}

/// What remains after the power cut.
struct SyncedFiles {
    synced: PathBuf,
    /// Files that were put back; a second name of one is a link.
    files: HashMap<String, PathBuf>,
}

impl SyncedFiles {
    fn folder(&mut self, inode: &str, to: &Path) {
        // A folder that was never synced is empty.
        let names = fs::read_to_string(self.synced.join(format!("d.{inode}"))).unwrap_or_default();
        for line in names.lines() {
            let mut words = line.splitn(3, ' ');
            let mut next = || words.next().expect("power.c writes three words");
            let (kind, inode, name) = (next(), next(), next());
            let to = to.join(name);
            if kind == "d" {
                fs::create_dir(&to).expect("a folder can be made");
                self.folder(inode, &to);
            } else {
                self.file(inode, &to);
            }
        }
    }

    fn file(&mut self, inode: &str, to: &Path) {
        if let Some(known) = self.files.get(inode) {
            fs::hard_link(known, to).expect("a file can be linked");
            return;
        }
        let synced = self.synced.join(format!("f.{inode}"));
        let made = match synced.exists() {
            true => fs::copy(synced, to).map(drop),
            false => fs::write(to, ""),
        };
        made.expect("a file can be made");
        self.files.insert(inode.to_owned(), to.to_owned());
    }
}
