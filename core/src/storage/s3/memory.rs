//! What transfers into a bucket hold in memory, bounded for all of a process together.

use tokio::sync::{Semaphore, SemaphorePermit};

/// What all of them may hold at once, in MiB.
const ALL: u32 = 192;

/// Lets transfers hold bytes, in the order in which they ask.
#[derive(Debug)]
pub(crate) struct Memory(Semaphore);

impl Default for Memory {
    fn default() -> Self {
        Self(Semaphore::new(ALL as usize))
    }
}

impl Memory {
    /// Waits until so many bytes may be held (or all there are, if that is less); they may until the permit is dropped.
    /// A transfer asks once, for all it will need, so that no two wait for each other.
    pub(crate) async fn hold(&self, bytes: u64) -> Option<SemaphorePermit<'_>> {
        let mebibytes = u32::try_from(bytes.div_ceil(1024 * 1024)).unwrap_or(ALL);
        // Fails only once it is closed, which it never is.
        self.0.acquire_many(mebibytes.min(ALL)).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    const LARGE: u64 = 48 * 1024 * 1024;

    #[tokio::test]
    async fn transfers_hold_no_more_than_all_there_is() {
        let memory = Memory::default();
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(memory.hold(LARGE).now_or_never().expect("room"));
        }
        assert!(memory.hold(1).now_or_never().is_none(), "all is held");
        held.pop();
        assert!(memory.hold(LARGE).now_or_never().is_some());
    }

    #[tokio::test]
    async fn one_that_wants_more_than_there_is_gets_all() {
        let memory = Memory::default();
        let all = memory.hold(u64::MAX).now_or_never();
        assert!(all.is_some());
        assert!(memory.hold(1).now_or_never().is_none());
    }
}
