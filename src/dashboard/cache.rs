//! A short-lived cache shared by all viewers: ten browsers cost as much as one.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

/// A value that is loaded at most once per TTL.
#[derive(Debug)]
pub(super) struct Cached<T> {
    ttl: Duration,
    last: Mutex<Option<(Instant, Arc<T>)>>,
}

impl<T> Cached<T> {
    pub(super) fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            last: Mutex::new(None),
        }
    }

    /// Returns the cached value, or loads a new one. Concurrent callers wait for the same load.
    pub(super) async fn get(&self, load: impl Future<Output = T>) -> Arc<T> {
        let mut last = self.last.lock().await;
        if let Some((at, value)) = &*last
            && at.elapsed() < self.ttl
        {
            return Arc::clone(value);
        }
        let value = Arc::new(load.await);
        *last = Some((Instant::now(), Arc::clone(&value)));
        value
    }

    /// Invalidates the cached value.
    pub(super) async fn invalidate(&self) {
        *self.last.lock().await = None;
    }
}
