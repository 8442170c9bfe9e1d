//! Lists a folder in pages.

use super::{is_absent, modified};
use crate::storage::{ListedObject, ObjectPages, PAGE, StorageError, UnfinishedWrite};
use futures::{StreamExt, stream};
use std::{
    fs, io,
    path::{Path, PathBuf},
};
use tokio::sync::mpsc;

/// Lists the objects below `root` whose keys start with `prefix`. The next page is read while one is processed.
pub(super) fn pages(root: PathBuf, prefix: String) -> ObjectPages {
    let (sender, receiver) = mpsc::channel(1);
    tokio::task::spawn_blocking(move || {
        let start = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        let start = start.to_owned();
        let mut walk = DirectoryWalk {
            root,
            prefix,
            page: Vec::new(),
            sender,
        };
        let outcome = walk.folder(&start);
        walk.finish(outcome);
    });
    let pages = stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|page| (page, receiver))
    });
    pages.boxed()
}

/// Lists the folder of temporary files.
pub(super) fn temporary(folder: &Path) -> io::Result<Vec<UnfinishedWrite>> {
    let mut left = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = match entry.metadata() {
            Ok(metadata) if metadata.is_file() => metadata,
            Ok(_) => continue,
            Err(error) if is_absent(&error) => continue,
            Err(error) => return Err(error),
        };
        if let Ok(id) = entry.file_name().into_string() {
            left.push(UnfinishedWrite {
                key: None,
                id,
                since: modified(&metadata),
            });
        }
    }
    Ok(left)
}

/// Walks the folders and sends a page whenever it is full, waiting until it is received.
struct DirectoryWalk {
    root: PathBuf,
    prefix: String,
    page: Vec<ListedObject>,
    sender: mpsc::Sender<Result<Vec<ListedObject>, StorageError>>,
}

impl DirectoryWalk {
    /// Returns false when the receiver is gone.
    fn folder(&mut self, folder: &str) -> io::Result<bool> {
        let entries = match fs::read_dir(self.root.join(folder)) {
            Ok(entries) => entries,
            Err(error) if is_absent(&error) => return Ok(true),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            // Temporary files and the installation's marker; no key starts with a dot.
            if folder.is_empty() && name.starts_with('.') {
                continue;
            }
            let key = match folder {
                "" => name,
                _ => format!("{folder}/{name}"),
            };
            let going_on = match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => {
                    let leads_on = key.starts_with(&self.prefix) || self.prefix.starts_with(&key);
                    !leads_on || self.folder(&key)?
                }
                Ok(metadata) if key.starts_with(&self.prefix) => self.add(ListedObject {
                    key,
                    size: metadata.len(),
                    etag: None,
                    modified: modified(&metadata),
                }),
                Err(error) if !is_absent(&error) => return Err(error),
                _ => true,
            };
            if !going_on {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn add(&mut self, object: ListedObject) -> bool {
        self.page.push(object);
        self.page.len() < PAGE
            || self
                .sender
                .blocking_send(Ok(std::mem::take(&mut self.page)))
                .is_ok()
    }

    fn finish(self, outcome: io::Result<bool>) {
        let last = match outcome {
            Err(error) => Err(StorageError::io("list files")(error)),
            Ok(true) if !self.page.is_empty() => Ok(self.page),
            Ok(_) => return,
        };
        // The page is not needed if the receiver is gone.
        let _ = self.sender.blocking_send(last);
    }
}
