//! The options and results of writing to staging.

use super::{ChecksumAlgorithm, Hashes, StagingError};
use crate::digest::Sha256State;
use std::{any::Any, sync::Arc};

/// Options for writing a body.
#[derive(Clone, Copy, Debug)]
pub struct WriteOptions<'a> {
    /// Maximum length of the body, in bytes.
    pub limit: u64,
    /// The length declared by the client, in bytes. A body that cannot fit is rejected before it is read.
    pub expected: Option<u64>,
    /// Algorithms to hash the body with.
    pub hashes: &'a [ChecksumAlgorithm],
    /// For appends: the hash state of the bytes staged before, to be continued.
    pub running: Option<&'a Sha256State>,
    /// Dropped only after the bytes of a canceled write are deleted, on a disk: the quota reserved for them.
    pub holds: Option<&'a Held>,
}

/// A value that must outlive staged bytes.
pub type Held = Arc<dyn Any + Send + Sync>;

impl Default for WriteOptions<'_> {
    /// Any length, no digests.
    fn default() -> Self {
        Self {
            limit: u64::MAX,
            expected: None,
            hashes: &[],
            running: None,
            holds: None,
        }
    }
}

/// A body that is completely staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StagedBody {
    /// In bytes.
    pub size: u64,
    /// The requested digests.
    pub hashes: Hashes,
}

/// The result of an append.
#[derive(Debug)]
pub struct AppendOutcome {
    /// The new length of the segment, in bytes, all of it durable. At 0 there is no segment.
    pub length: u64,
    /// The requested digests of the bytes added by this call.
    pub hashes: Hashes,
    /// The hash state of all bytes of the upload so far, if it was continued and is still known.
    pub running: Option<Sha256State>,
    /// Why the body ended early, if it did; `length` includes what came before.
    pub stopped: Option<StagingError>,
}
