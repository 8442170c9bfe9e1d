//! Staged bytes as the database and listings describe them.

use super::StagingKey;
use chrono::{DateTime, Utc};
use std::ops::Range;

/// Staged bytes of one segment, as the database lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub key: StagingKey,
    /// Offset within the segment, in bytes: 0 except for parts received by a version without segments.
    pub offset: u64,
    /// In bytes. The segment may be longer; the rest does not count.
    pub size: u64,
    /// Whether a writer that lost its lease may still be appending to the segment, beyond `size`.
    pub may_grow: bool,
}

impl Piece {
    /// The first bytes of a segment that has no writer any more.
    #[must_use]
    pub fn new(key: StagingKey, size: u64) -> Self {
        Self {
            key,
            offset: 0,
            size,
            may_grow: false,
        }
    }

    pub(crate) fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.size
    }
}

/// A listed staging key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedStaging {
    pub key: StagingKey,
    /// Allocated size, in bytes.
    pub allocated: u64,
    /// When it was last written to.
    pub modified: DateTime<Utc>,
}
