//! What was seen a moment ago, for all who look now: ten browsers cost what one does.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

/// Something that is looked at, at most once in a while.
#[derive(Debug)]
pub(super) struct Cached<T> {
    lasts: Duration,
    last: Mutex<Option<(Instant, Arc<T>)>>,
}

impl<T> Cached<T> {
    pub(super) fn new(lasts: Duration) -> Self {
        Self {
            lasts,
            last: Mutex::new(None),
        }
    }

    /// What was seen lately, or what `load` sees now. Those who come while one looks wait for what it sees.
    pub(super) async fn get(&self, load: impl Future<Output = T>) -> Arc<T> {
        let mut last = self.last.lock().await;
        if let Some((at, seen)) = &*last
            && at.elapsed() < self.lasts
        {
            return Arc::clone(seen);
        }
        let seen = Arc::new(load.await);
        *last = Some((Instant::now(), Arc::clone(&seen)));
        seen
    }

    /// Something was changed: the next look is a new one.
    pub(super) async fn invalidate(&self) {
        *self.last.lock().await = None;
    }
}
