//! Access to a server's data on disk, bypassing the protocol and the injected faults.

use std::path::PathBuf;

use super::store::{OpenUpload, Store};

/// The buckets of an [`S3Server`](super::S3Server) as they lie on disk; clones show the same.
#[derive(Debug, Clone)]
pub struct S3View {
    root: PathBuf,
    store: Store,
}

impl S3View {
    pub(super) fn new(root: PathBuf, store: Store) -> Self {
        Self { root, store }
    }

    /// Returns the file of an object, if it exists.
    #[must_use]
    pub fn path(&self, bucket: &str, key: &str) -> PathBuf {
        self.root.join(bucket).join(key)
    }

    /// The bytes of an object.
    #[must_use]
    pub fn object(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        std::fs::read(self.path(bucket, key)).ok()
    }

    /// The keys of a bucket, in order.
    #[must_use]
    pub fn keys(&self, bucket: &str) -> Vec<String> {
        let bucket = self.root.join(bucket);
        let mut folders = vec![bucket.clone()];
        let mut keys = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else if let Ok(key) = path.strip_prefix(&bucket) {
                    keys.push(key.to_string_lossy().into_owned());
                }
            }
        }
        keys.sort_unstable();
        keys
    }

    /// The multipart uploads that were created and neither completed nor aborted.
    #[must_use]
    pub fn open_multipart_uploads(&self) -> Vec<OpenUpload> {
        self.store.open_uploads()
    }
}
