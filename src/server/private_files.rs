//! What Landfall creates is for its own user alone: bytes, database, secrets, sockets.

use rustix::{fs::Mode, process::umask};
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// Nobody else may read, write or enter.
const OTHERS: Mode = Mode::from_raw_mode(0o077);

/// Folders are made 0700 and files 0600 from here on, by this process and those it starts. To be called before anything
/// is created, and before there is a second thread.
pub fn keep_private() {
    let before = umask(OTHERS);
    umask(before | OTHERS);
}

/// The database of an earlier version is closed to others too; its folder stays as whoever made it wanted it.
pub(super) fn close_database(data_dir: &Path) {
    for name in ["landfall.db", "landfall.db-wal", "landfall.db-shm"] {
        let path = data_dir.join(name);
        let Ok(found) = fs::metadata(&path) else {
            continue;
        };
        if found.permissions().mode() & OTHERS.as_raw_mode() == 0 {
            continue;
        }
        if let Err(error) = fs::set_permissions(&path, Permissions::from_mode(0o600)) {
            tracing::warn!(path = %path.display(), %error, "others on this machine may read the database");
        }
    }
}
