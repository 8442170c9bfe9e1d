//! Files created by Landfall are private to its user: bytes, database, secrets, sockets.

use rustix::{fs::Mode, process::umask};
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
};

/// The permissions denied to group and others.
const OTHERS: Mode = Mode::from_raw_mode(0o077);

/// From here on folders are created with mode 0700 and files with 0600, by this process and its children. Call it
/// before anything is created, and before a second thread starts.
pub fn keep_private() {
    let before = umask(OTHERS);
    umask(before | OTHERS);
}

/// Makes the database files of an earlier version private too; the mode of its folder is not changed.
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
            tracing::warn!(path = %path.display(), %error, "other users of this machine may be able to read the database");
        }
    }
}
