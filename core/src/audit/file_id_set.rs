//! The stored files whose objects a list of storage has shown as they should be: eight bytes for each.

use entity::FileId;

/// Ids by their last 64 bits, which are random: that two of an installation are equal there is less likely than that a
/// digest lies.
#[derive(Debug, Default)]
pub(super) struct FileIdSet(Vec<u64>);

impl FileIdSet {
    pub(super) fn add(&mut self, id: FileId) {
        self.0.push(id.0.as_u64_pair().1);
    }

    /// To be called once all are added.
    pub(super) fn sort(&mut self) {
        self.0.sort_unstable();
    }

    pub(super) fn contains(&self, id: FileId) -> bool {
        self.0.binary_search(&id.0.as_u64_pair().1).is_ok()
    }
}
