//! The memory budget of transfers into a bucket, for the whole process.
//!
//! Small files have their own share, so that large transfers, however many and slow, never delay them. A large transfer
//! holds its minimum, and more for each further part in flight while there is room.

use tokio::sync::{Semaphore, SemaphorePermit};

/// The share of objects that are sent in a single request, in MiB.
const SMALL_MIB: u32 = 64;

/// The share of objects that are sent in parts, in MiB.
const LARGE_MIB: u32 = 128;

const MIB: u64 = 1024 * 1024;

/// Grants memory to transfers, first come, first served.
#[derive(Debug)]
pub(crate) struct TransferMemory {
    small: Semaphore,
    large: Semaphore,
}

impl Default for TransferMemory {
    fn default() -> Self {
        Self {
            small: Semaphore::new(SMALL_MIB as usize),
            large: Semaphore::new(LARGE_MIB as usize),
        }
    }
}

impl TransferMemory {
    /// Waits until `bytes` of a small object may be held; they are released with the permit.
    pub(crate) async fn hold_small(&self, bytes: u64) -> Option<SemaphorePermit<'_>> {
        // Fails only if the semaphore is closed, which never happens.
        self.small
            .acquire_many(mebibytes(bytes, SMALL_MIB))
            .await
            .ok()
    }

    /// Waits until `bytes` of a large object may be held. A transfer asks once, for its minimum, so that transfers do
    /// not deadlock.
    pub(crate) async fn hold_large(&self, bytes: u64) -> Option<SemaphorePermit<'_>> {
        self.large
            .acquire_many(mebibytes(bytes, LARGE_MIB))
            .await
            .ok()
    }

    /// Grants further bytes if there is room and no other transfer is waiting.
    pub(crate) fn try_hold_large(&self, bytes: u64) -> Option<SemaphorePermit<'_>> {
        self.large
            .try_acquire_many(mebibytes(bytes, LARGE_MIB))
            .ok()
    }
}

fn mebibytes(bytes: u64, most: u32) -> u32 {
    u32::try_from(bytes.div_ceil(MIB)).map_or(most, |needed| needed.min(most))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn large_transfers_never_keep_small_files_waiting() {
        let memory = TransferMemory::default();
        let mut held = Vec::new();
        while let Some(permit) = memory.hold_large(24 * MIB).now_or_never() {
            held.push(permit);
        }
        assert!(held.len() >= 4, "{} large transfers at once", held.len());
        while memory
            .try_hold_large(MIB)
            .map(|permit| held.push(Some(permit)))
            .is_some()
        {}
        let small = memory.hold_small(16 * MIB).now_or_never();
        assert!(small.is_some(), "small files have a share of their own");
    }

    #[tokio::test]
    async fn further_parts_give_way_to_transfers_that_wait() {
        let memory = TransferMemory::default();
        let first = memory.hold_large(24 * MIB).await;
        let mut parts = Vec::new();
        while let Some(part) = memory.try_hold_large(8 * MIB) {
            parts.push(part);
        }
        let mut waiting = Box::pin(memory.hold_large(24 * MIB));
        assert!(waiting.as_mut().now_or_never().is_none());
        for _ in 0..2 {
            parts.pop();
            assert!(memory.try_hold_large(8 * MIB).is_none(), "another waits");
        }
        parts.pop();
        assert!(waiting.now_or_never().is_some());
        drop(first);
    }

    #[tokio::test]
    async fn one_that_wants_more_than_there_is_gets_all() {
        let memory = TransferMemory::default();
        let all = memory.hold_small(u64::MAX).now_or_never();
        assert!(all.is_some());
        assert!(memory.hold_small(1).now_or_never().is_none());
    }
}
