//! Syncs what a server wrote without syncing, for a fair comparison.

use anyhow::Context;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

/// Syncs every file below the folder with several threads, then the folders.
pub(super) fn sync(folder: &Path, threads: usize) -> anyhow::Result<()> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    let mut at = 0;
    while let Some(open) = folders.get(at).cloned() {
        at += 1;
        let read = fs::read_dir(&open).with_context(|| format!("{}", open.display()))?;
        for entry in read {
            let entry = entry?;
            match entry.file_type()? {
                kind if kind.is_dir() => folders.push(entry.path()),
                kind if kind.is_file() => files.push(entry.path()),
                _ => {}
            }
        }
    }
    for paths in [files, folders] {
        each(&paths, threads)?;
    }
    Ok(())
}

fn each(paths: &[PathBuf], threads: usize) -> anyhow::Result<()> {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let sync = || {
            while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
                let synced = File::open(path).and_then(|file| file.sync_all());
                synced.with_context(|| format!("{} cannot be synced", path.display()))?;
            }
            Ok::<_, anyhow::Error>(())
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(sync)).collect();
        for thread in threads {
            let done = thread.join();
            done.map_err(|_| anyhow::anyhow!("a thread that syncs has failed"))??;
        }
        Ok(())
    })
}
