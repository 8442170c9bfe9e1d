//! One `landfall up` per data folder: a second one would start a second Redis and share the SQLite database.

use anyhow::{Context, bail};
use std::{
    fs::{self, File, TryLockError},
    path::Path,
};

/// The lock of a data folder, held until the process ends.
#[derive(Debug)]
pub struct InstanceLock {
    _file: File,
}

/// Creates the data folder and locks it for this process.
///
/// # Errors
/// If the folder cannot be created, or another process has locked it.
pub fn lock_data_dir(folder: &Path) -> anyhow::Result<InstanceLock> {
    fs::create_dir_all(folder)
        .with_context(|| format!("cannot create data_dir {}", folder.display()))?;
    let path = folder.join("landfall.lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(InstanceLock { _file: file }),
        Err(TryLockError::WouldBlock) => {
            bail!(
                "another landfall process is using data_dir {}; stop it, or set another data_dir",
                folder.display()
            )
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}
