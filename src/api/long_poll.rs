//! Requests that wait for a file to become final (`?wait=`): woken by a notification, and polling as well.

use entity::FileId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};
use tokio::sync::Notify;

/// The requests that wait for each file; cheap to clone.
///
/// Call [`Waiters::settled`] when a file becomes final. Notifications may be missed: waiting requests also poll the
/// database, only later.
#[derive(Clone, Debug, Default)]
pub struct Waiters(Arc<Mutex<HashMap<FileId, Weak<Notify>>>>);

/// The registration of one waiting request, removed on drop.
#[derive(Debug)]
pub struct FileWaiter {
    waiters: Waiters,
    file: FileId,
    notify: Arc<Notify>,
}

impl Waiters {
    /// Wakes the requests that wait for this file: it is final or was deleted.
    pub fn settled(&self, file: FileId) {
        if let Some(notify) = self.registrations().get(&file).and_then(Weak::upgrade) {
            notify.notify_waiters();
        }
    }

    /// Registers a waiting request. Register before reading the file, so that no change in between is missed.
    #[must_use]
    pub fn wait_for(&self, file: FileId) -> FileWaiter {
        let mut registrations = self.registrations();
        let notify = registrations
            .get(&file)
            .and_then(Weak::upgrade)
            .unwrap_or_default();
        registrations.insert(file, Arc::downgrade(&notify));
        drop(registrations);
        FileWaiter {
            waiters: self.clone(),
            file,
            notify,
        }
    }

    fn registrations(&self) -> MutexGuard<'_, HashMap<FileId, Weak<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FileWaiter {
    /// Completes with the next [`Waiters::settled`] after this call, even before the first poll.
    pub fn woken(&self) -> impl Future<Output = ()> + '_ {
        self.notify.notified()
    }
}

impl Drop for FileWaiter {
    fn drop(&mut self) {
        let mut registrations = self.waiters.registrations();
        // This registration still counts.
        if Arc::strong_count(&self.notify) == 1 {
            registrations.remove(&self.file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everyone_who_waits_is_woken_and_no_place_is_left() {
        let waiters = Waiters::default();
        let (file, other) = (FileId::generate(), FileId::generate());
        let (one, two) = (waiters.wait_for(file), waiters.wait_for(file));
        let both = futures::future::join(one.woken(), two.woken());
        waiters.settled(other);
        waiters.settled(file);
        both.await;
        drop((one, two));
        assert!(waiters.registrations().is_empty());
    }
}
