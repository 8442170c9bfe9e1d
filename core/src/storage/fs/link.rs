//! Publishes a file under its key: by a hard link if the file system supports it, otherwise by a rename.
//!
//! Both block, refuse to replace other content at the key, and recognize the result of an earlier run.

use crate::{
    digest::Sha256Digest,
    fs_io::{fsync::is_not_supported, read::digest_file},
};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
};

/// The result of linking a file into storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkOutcome {
    /// The object was created.
    Yes,
    /// The object existed: the same file, or the same bytes.
    Already,
    /// The file system cannot link the two paths.
    Impossible,
}

/// Returns `None` when other bytes are there and there is no spare name for overwriting them.
pub(super) fn by_link(
    from: &Path,
    to: &Path,
    content: (Sha256Digest, u64),
    spare: Option<&Path>,
) -> io::Result<Option<LinkOutcome>> {
    let linked = link(from, to, content, spare)?;
    // A link of the right size proves that it worked; a file system that reports a false success is detected here.
    match linked {
        Some(LinkOutcome::Yes | LinkOutcome::Already) if fs::metadata(to)?.len() != content.1 => {
            Err(io::Error::other("it has another size than what was linked"))
        }
        linked => Ok(linked),
    }
}

fn link(
    from: &Path,
    to: &Path,
    content: (Sha256Digest, u64),
    spare: Option<&Path>,
) -> io::Result<Option<LinkOutcome>> {
    match fs::hard_link(from, to) {
        Ok(()) => return Ok(Some(LinkOutcome::Yes)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) if is_linkless(&error) => return Ok(Some(LinkOutcome::Impossible)),
        Err(error) => return Err(error),
    }
    let (ours, there) = (fs::metadata(from)?, fs::metadata(to)?);
    if (ours.dev(), ours.ino()) == (there.dev(), there.ino()) {
        return Ok(Some(LinkOutcome::Already));
    }
    if !has_exact_name(to)? {
        return Ok(None);
    }
    if let Some(spare) = spare {
        fs::hard_link(from, spare)?;
        return fs::rename(spare, to).map(|()| Some(LinkOutcome::Yes));
    }
    Ok(holds(to, content)?.then_some(LinkOutcome::Already))
}

/// For file systems without hard links. Between the check and the rename, only the database excludes other writers.
pub(super) fn by_rename(
    from: &Path,
    to: &Path,
    content: (Sha256Digest, u64),
    overwrite: bool,
) -> io::Result<Option<LinkOutcome>> {
    if to.try_exists()? {
        if !has_exact_name(to)? {
            return Ok(None);
        }
        if !overwrite {
            return Ok(holds(to, content)?.then_some(LinkOutcome::Already));
        }
    }
    fs::rename(from, to).map(|()| Some(LinkOutcome::Yes))
}

/// Whether the file at the path has exactly this name. On a file system that ignores case, another object may be there
/// whose key differs only in case: it must be neither shared nor replaced, even if its bytes are the same.
fn has_exact_name(path: &Path) -> io::Result<bool> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(true);
    };
    for entry in fs::read_dir(folder)? {
        if entry?.file_name() == name {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the file has these bytes: a copy from before a crash is a separate file with the same content.
fn holds(path: &Path, (digest, size): (Sha256Digest, u64)) -> io::Result<bool> {
    let there = fs::metadata(path)?;
    if !there.is_file() || there.len() != size {
        return Ok(false);
    }
    Ok(digest_file(&mut File::open(path)?)? == (digest, size))
}

/// Whether links are impossible: another device, a file system without hard links (CIFS and some FUSE file systems
/// return EINVAL), or a file with too many of them.
fn is_linkless(error: &io::Error) -> bool {
    use io::ErrorKind::{CrossesDevices, PermissionDenied, TooManyLinks};
    is_not_supported(error)
        || matches!(
            error.kind(),
            CrossesDevices | TooManyLinks | PermissionDenied
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn name_that_differs_in_case_is_another_name() {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("Object"), "bytes").unwrap();
        assert!(has_exact_name(&folder.path().join("Object")).unwrap());
        assert!(!has_exact_name(&folder.path().join("object")).unwrap());
    }

    #[test]
    fn without_links_a_rename_refuses_what_is_not_the_same() {
        let folder = TempDir::new().unwrap();
        let to = folder.path().join("object");
        let write = |bytes: &str| {
            let from = folder.path().join("temporary");
            fs::write(&from, bytes).unwrap();
            (
                from,
                (Sha256Digest::compute(bytes.as_bytes()), bytes.len() as u64),
            )
        };
        let (from, first) = write("first");
        let renamed = by_rename(&from, &to, first, false).unwrap();
        assert_eq!(renamed, Some(LinkOutcome::Yes));
        let (from, again) = write("first");
        let renamed = by_rename(&from, &to, again, false).unwrap();
        assert_eq!(renamed, Some(LinkOutcome::Already));
        let (from, other) = write("other");
        assert_eq!(by_rename(&from, &to, other, false).unwrap(), None);
        assert_eq!(fs::read(&to).unwrap(), b"first");
        by_rename(&from, &to, other, true).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"other");
    }
}
