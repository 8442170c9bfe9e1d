//! The marker: the installation's id, stored beside the bytes in staging and in storage.
//!
//! In a folder it is the file [`FILE`], in a bucket the object [`OBJECT`]. Neither is a valid staging or storage key,
//! so the marker never appears in a listing. A marker is written atomically.

use crate::fs_io::fsync::sync_folder_at;
use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};
use uuid::Uuid;

/// The marker's name in a folder.
pub(crate) const FILE: &str = ".landfall-installation";

/// The marker's key in a bucket.
pub(crate) const OBJECT: &str = "landfall-installation";

/// Maximum size of a marker, in bytes; more is not read.
pub(crate) const MAX_LEN: u64 = 4096;

/// Why a location must not be used: nothing is written to it, and nothing is deleted from it or considered missing
/// there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MarkerError {
    /// No marker: an unmounted volume, the wrong folder or bucket, or one that was wiped.
    #[error(
        "the installation's marker is missing: mount the volume or correct the setting; after a move or a restore, \
         run `landfall adopt`"
    )]
    Missing,
    /// The location, or the database, belongs to another installation.
    #[error(
        "the marker is of another installation ({found}): correct database.url or the place; after a move or a \
         restore, run `landfall adopt`"
    )]
    Foreign {
        /// The id in the marker, or a note that it cannot be read.
        found: String,
    },
}

/// The contents of a marker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Marker {
    Id(Uuid),
    /// The contents are not those of a marker.
    Unreadable,
}

impl Marker {
    /// Parses the contents of a marker.
    pub(crate) fn parse(contents: &[u8]) -> Self {
        let text = String::from_utf8_lossy(contents);
        let first = text.lines().next().unwrap_or_default();
        first.trim().parse().map_or(Self::Unreadable, Self::Id)
    }
}

impl std::fmt::Display for Marker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Unreadable => f.write_str("unreadable"),
        }
    }
}

/// The contents of the marker of `id`.
pub(crate) fn contents(id: Uuid) -> String {
    format!(
        "{id}\nThis marks what belongs to a Landfall installation. Keep it, and back it up with the rest.\n"
    )
}

/// Checks that the marker found is that of `expected`.
///
/// # Errors
/// [`MarkerError`].
pub(crate) fn compare(found: Option<&Marker>, expected: Uuid) -> Result<(), MarkerError> {
    match found {
        Some(Marker::Id(id)) if *id == expected => Ok(()),
        Some(other) => Err(MarkerError::Foreign {
            found: other.to_string(),
        }),
        None => Err(MarkerError::Missing),
    }
}

/// Reads the marker in a folder; `None` when it, or the folder, does not exist. Blocks.
pub(crate) fn read_in(folder: &Path) -> io::Result<Option<Marker>> {
    let file = match File::open(folder.join(FILE)) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        other => other?,
    };
    let mut contents = Vec::new();
    file.take(MAX_LEN).read_to_end(&mut contents)?;
    Ok(Some(Marker::parse(&contents)))
}

/// Fails if a folder lacks the marker of `expected`. Blocks.
pub(crate) fn require_in(folder: &Path, expected: Uuid) -> io::Result<()> {
    compare(read_in(folder)?.as_ref(), expected).map_err(io::Error::other)
}

/// Writes the marker of `id` into a folder, overwriting any other if `replace` is set. Returns false when another
/// marker was kept. Blocks.
pub(crate) fn write_in(folder: &Path, id: Uuid, replace: bool) -> io::Result<bool> {
    let path = folder.join(FILE);
    let temporary = folder.join(format!("{FILE}.{}", Uuid::now_v7()));
    let written = publish(&temporary, &path, id, replace);
    // After a rename it no longer exists.
    let _ = fs::remove_file(&temporary);
    if written? {
        sync_folder_at(folder)?;
        return Ok(true);
    }
    Ok(false)
}

fn publish(temporary: &Path, path: &Path, id: Uuid, replace: bool) -> io::Result<bool> {
    let mut file = File::create_new(temporary)?;
    file.write_all(contents(id).as_bytes())?;
    file.sync_all()?;
    if replace {
        return fs::rename(temporary, path).map(|()| true);
    }
    match fs::hard_link(temporary, path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        // The file system has no hard links. Concurrent writers write the same id, which they got from the database.
        Err(_) if path.try_exists()? => Ok(false),
        Err(_) => fs::rename(temporary, path).map(|()| true),
    }
}

/// What a process knows about the marker of its bucket. Reading it costs a request, so it is read until it was seen
/// once, and then again by each health check. Unlike a mounted folder, a bucket is not replaced under a running
/// process.
#[derive(Debug, Default)]
pub(crate) struct BucketMarker {
    expected: OnceLock<Uuid>,
    seen: AtomicBool,
}

impl BucketMarker {
    pub(crate) fn expect(&self, id: Uuid) {
        let _ = self.expected.set(id);
    }

    /// The expected id, if it has not been seen in the bucket yet.
    pub(crate) fn unseen(&self) -> Option<Uuid> {
        let expected = *self.expected.get()?;
        (!self.seen.load(Ordering::Relaxed)).then_some(expected)
    }

    /// Records the result of reading the marker.
    pub(crate) fn record_result(&self, found: Option<&Marker>) {
        if let Some(expected) = self.expected.get() {
            let seen = compare(found, *expected).is_ok();
            self.seen.store(seen, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    #[test]
    fn marker_is_written_once_and_replaced_only_when_asked() {
        let folder = TempDir::new().unwrap();
        let place = folder.path().join("staging");
        assert_eq!(read_in(&place).unwrap(), None);
        write_in(&place, Uuid::now_v7(), false).unwrap_err();
        fs::create_dir(&place).unwrap();
        let (first, second) = (Uuid::now_v7(), Uuid::now_v7());
        assert!(write_in(&place, first, false).unwrap());
        assert!(!write_in(&place, second, false).unwrap());
        assert_eq!(read_in(&place).unwrap(), Some(Marker::Id(first)));
        assert!(write_in(&place, second, true).unwrap());
        require_in(&place, second).unwrap();
        require_in(&place, first).unwrap_err();
        assert_eq!(fs::read_dir(&place).unwrap().count(), 1, "nothing is left");
        fs::write(place.join(FILE), "something else").unwrap();
        assert_eq!(read_in(&place).unwrap(), Some(Marker::Unreadable));
    }
}
