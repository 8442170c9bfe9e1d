//! The client's view: each acknowledged upload, as it was sent.

use landfall_core::digest::Sha256Digest;
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// An upload that the server acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentFile {
    pub id: String,
    /// In bytes, as sent.
    pub size: u64,
    /// Of the bytes as sent, in lower-case hexadecimal digits.
    pub sha256: String,
    /// Whether the client deleted it afterwards, and the deletion was acknowledged.
    pub deleted: bool,
}

/// Every acknowledged upload of a test; the upload helpers add to it.
#[derive(Debug, Default)]
pub struct ClientLog(Mutex<BTreeMap<String, SentFile>>);

impl ClientLog {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, SentFile>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that the upload with this id was acknowledged, and what was sent.
    pub fn acknowledged(&self, id: &str, bytes: &[u8]) {
        let digest = Sha256Digest::compute(bytes).to_string();
        self.acknowledged_as(id, bytes.len() as u64, digest);
    }

    /// Like [`ClientLog::acknowledged`], for bytes that are no longer available.
    pub fn acknowledged_as(&self, id: &str, size: u64, sha256: String) {
        let file = SentFile {
            id: id.to_owned(),
            size,
            sha256,
            deleted: false,
        };
        let before = self.lock().insert(id.to_owned(), file.clone());
        assert!(
            before.is_none_or(|before| before == file),
            "the id {id} was given to two different uploads"
        );
    }

    /// Records that the file's deletion was acknowledged.
    pub fn deleted(&self, id: &str) {
        let mut files = self.lock();
        let file = files.get_mut(id);
        file.expect("only an acknowledged upload can be deleted")
            .deleted = true;
    }

    /// Returns all uploads, ordered by id.
    pub fn files(&self) -> Vec<SentFile> {
        self.lock().values().cloned().collect()
    }

    pub fn len(&self) -> usize {
        self.lock().len()
    }
}
