//! One `landfall up` for one data folder: a second would start a second Redis and share one SQLite.

use anyhow::{Context, bail};
use std::{
    fs::{self, File, TryLockError},
    path::Path,
};

/// Held as long as the process lives, however it ends.
#[derive(Debug)]
pub struct InstanceLock {
    _file: File,
}

/// Makes the data folder and takes it for this process.
///
/// # Errors
/// When the folder cannot be made, or another process has it.
pub fn lock_data_dir(folder: &Path) -> anyhow::Result<InstanceLock> {
    fs::create_dir_all(folder)
        .with_context(|| format!("cannot make data_dir {}", folder.display()))?;
    let path = folder.join("landfall.lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(InstanceLock { _file: file }),
        Err(TryLockError::WouldBlock) => {
            bail!(
                "another landfall is up on data_dir {}; stop it, or set another data_dir",
                folder.display()
            )
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}
