//! Requests that wait for a file to become final: woken when somebody says so, and looking for themselves too.

use entity::FileId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};
use tokio::sync::Notify;

/// Who waits for which file; cheap to clone.
///
/// Whatever hears of settled files calls [`Waiters::settled`]. Nobody depends on it: those who wait also look into
/// the database, only later.
#[derive(Clone, Debug, Default)]
pub struct Waiters(Arc<Mutex<HashMap<FileId, Weak<Notify>>>>);

/// One request's place; given up when dropped.
#[derive(Debug)]
pub struct FileWaiter {
    waiters: Waiters,
    file: FileId,
    notify: Arc<Notify>,
}

impl Waiters {
    /// The file is final, or was deleted.
    pub fn settled(&self, file: FileId) {
        if let Some(notify) = self.places().get(&file).and_then(Weak::upgrade) {
            notify.notify_waiters();
        }
    }

    /// Takes a place; to be taken before the file is looked at, so that nothing is missed in between.
    #[must_use]
    pub fn wait_for(&self, file: FileId) -> FileWaiter {
        let mut places = self.places();
        let notify = places
            .get(&file)
            .and_then(Weak::upgrade)
            .unwrap_or_default();
        places.insert(file, Arc::downgrade(&notify));
        drop(places);
        FileWaiter {
            waiters: self.clone(),
            file,
            notify,
        }
    }

    fn places(&self) -> MutexGuard<'_, HashMap<FileId, Weak<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FileWaiter {
    /// Ends with the next [`Waiters::settled`] after the call, not after the first poll.
    pub fn woken(&self) -> impl Future<Output = ()> + '_ {
        self.notify.notified()
    }
}

impl Drop for FileWaiter {
    fn drop(&mut self) {
        let mut places = self.waiters.places();
        // This one still counts.
        if Arc::strong_count(&self.notify) == 1 {
            places.remove(&self.file);
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
        assert!(waiters.places().is_empty());
    }
}
