//! How a file gets its key: by a link where the file system has links, else by a rename.
//!
//! Both block, refuse what others have put at the key, and know what an earlier run has.

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

/// What a link to a place in storage came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkOutcome {
    /// The object is there now.
    Yes,
    /// It was there: the same file, or the same bytes.
    Already,
    /// The file system has no link between the two places.
    Impossible,
}

/// None: other bytes are there and there is no spare name to overwrite them by.
pub(super) fn by_link(
    from: &Path,
    to: &Path,
    content: (Sha256Digest, u64),
    spare: Option<&Path>,
) -> io::Result<Option<LinkOutcome>> {
    let linked = link(from, to, content, spare)?;
    // A link of the right size is what was to be there; a file system that lies is found out here.
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
    if let Some(spare) = spare {
        fs::hard_link(from, spare)?;
        return fs::rename(spare, to).map(|()| Some(LinkOutcome::Yes));
    }
    Ok(holds(to, content)?.then_some(LinkOutcome::Already))
}

/// For file systems without links; between the look and the rename only the database keeps others away.
pub(super) fn by_rename(
    from: &Path,
    to: &Path,
    content: (Sha256Digest, u64),
    overwrite: bool,
) -> io::Result<Option<LinkOutcome>> {
    if !overwrite && to.try_exists()? {
        return Ok(holds(to, content)?.then_some(LinkOutcome::Already));
    }
    fs::rename(from, to).map(|()| Some(LinkOutcome::Yes))
}

/// A copy of before a crash is a file of its own with the same bytes.
fn holds(path: &Path, (digest, size): (Sha256Digest, u64)) -> io::Result<bool> {
    let there = fs::metadata(path)?;
    if !there.is_file() || there.len() != size {
        return Ok(false);
    }
    Ok(digest_file(&mut File::open(path)?)? == (digest, size))
}

/// Another device, a file system without hard links (CIFS and some FUSE file systems answer EINVAL), or a file with
/// too many of them.
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
