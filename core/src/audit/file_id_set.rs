//! The stored files whose objects were listed in storage as expected; eight bytes per file.

use entity::FileId;

/// Identifies files by the last 64 bits of their ids, which are random. A collision within an installation is less
/// likely than a wrong digest.
#[derive(Debug, Default)]
pub(super) struct FileIdSet(Vec<u64>);

impl FileIdSet {
    pub(super) fn add(&mut self, id: FileId) {
        self.0.push(id.0.as_u64_pair().1);
    }

    /// Must be called once all ids are added, before [`Self::contains`].
    pub(super) fn sort(&mut self) {
        self.0.sort_unstable();
    }

    pub(super) fn contains(&self, id: FileId) -> bool {
        self.0.binary_search(&id.0.as_u64_pair().1).is_ok()
    }
}
