//! The jobs that this worker holds: fetched and not yet acknowledged to Redis.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// A lease that this worker holds. The token is the owner in Redis; it differs for every fetch, so the end of an old
/// run never affects a newer one.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub(crate) id: Arc<str>,
    pub(crate) token: Arc<str>,
    /// Empty without a group.
    pub(crate) group: Arc<str>,
    /// Fetched from a slow group, for one of the slow slots.
    pub(crate) slow: bool,
    pub(crate) since: SystemTime,
    /// Cancelled when another worker has the lease: the handler is dropped.
    pub(crate) lost: CancellationToken,
    /// Cancelled when no handler runs under this claim, or any more.
    pub(crate) ended: CancellationToken,
}

impl Claim {
    pub(crate) fn new(id: &str, group: &str, token: &Arc<str>, slow: bool) -> Self {
        Self {
            id: id.into(),
            token: token.clone(),
            group: group.into(),
            slow,
            since: SystemTime::now(),
            lost: CancellationToken::new(),
            ended: CancellationToken::new(),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Claims {
    held: Mutex<HashMap<Arc<str>, Claim>>,
    emptied: Notify,
}

impl Claims {
    fn held(&self) -> MutexGuard<'_, HashMap<Arc<str>, Claim>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn len(&self) -> usize {
        self.held().len()
    }

    /// Adds a claim. An older claim of the same id is no longer ours in Redis: its handler is cancelled, and this waits
    /// until it has ended, since Apalis refuses to run one id twice in a worker.
    pub(crate) async fn add(&self, claim: Claim) {
        let old = self.held().insert(claim.id.clone(), claim);
        if let Some(old) = old {
            old.lost.cancel();
            old.ended.cancelled().await;
        }
    }

    /// Removes a claim, unless a newer one has replaced it.
    pub(crate) fn remove(&self, id: &str, token: &str) {
        let mut held = self.held();
        if held.get(id).is_some_and(|claim| &*claim.token == token) {
            held.remove(id);
        }
        if held.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    /// Another worker has the lease.
    pub(crate) fn lose(&self, id: &str, token: &str) {
        let lost = {
            let held = self.held();
            let claim = held.get(id).filter(|claim| &*claim.token == token);
            claim.map(|claim| claim.lost.clone())
        };
        if let Some(lost) = lost {
            lost.cancel();
            self.remove(id, token);
        }
    }

    pub(crate) fn all(&self) -> Vec<Claim> {
        self.held().values().cloned().collect()
    }

    pub(crate) async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if self.held().is_empty() {
                return;
            }
            emptied.await;
        }
    }
}
