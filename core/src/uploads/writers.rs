//! The writers at work in this process: who asks where an upload is has them count what they have.
//!
//! And the segments they have ended with, which the next append here may continue. Both are hints: a process that knows
//! nothing of an upload reads what is counted, and begins a segment of its own.

use super::write_lease::OpenSegment;
use entity::{UploadId, upload::Model};
use futures::future::select_all;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

/// Segments that are remembered. Each is a file in staging, and costs nothing when it is forgotten.
const MAX_ENDED: usize = 10_000;

/// Shared by all requests of a process.
#[derive(Clone, Debug, Default)]
pub(super) struct ActiveWriters {
    at_work: Arc<Mutex<HashMap<UploadId, Vec<Arc<WriterSignals>>>>>,
    /// Ids are made of the time (UUIDv7, RFC 9562): the first is the oldest.
    ended: Arc<Mutex<BTreeMap<UploadId, EndedWriter>>>,
}

#[derive(Debug, Default)]
struct WriterSignals {
    count_now: Notify,
    counted: watch::Sender<()>,
}

/// Where a writer has ended.
#[derive(Clone, Copy, Debug)]
struct EndedWriter {
    segment: OpenSegment,
    fence: i64,
    offset: i64,
}

/// A writer at work, until it is dropped.
#[derive(Debug)]
pub(super) struct ActiveWriter {
    writers: ActiveWriters,
    id: UploadId,
    signals: Arc<WriterSignals>,
}

/// What the body of a writer is interrupted by; none for bodies that count as a whole.
#[derive(Clone, Debug, Default)]
pub(super) struct CountRequests(Option<Arc<WriterSignals>>);

impl ActiveWriters {
    pub(super) fn begin(&self, id: UploadId) -> ActiveWriter {
        let signals = Arc::new(WriterSignals::default());
        let mut at_work = lock(&self.at_work);
        at_work.entry(id).or_default().push(Arc::clone(&signals));
        drop(at_work);
        ActiveWriter {
            writers: self.clone(),
            id,
            signals,
        }
    }

    /// Has the writers at work on an upload here count what they have, and waits until one has, for `most`. False when
    /// there is none.
    pub(super) async fn count_now(&self, id: UploadId, most: Duration) -> bool {
        let asked = lock(&self.at_work).get(&id).cloned().unwrap_or_default();
        if asked.is_empty() {
            return false;
        }
        let mut receivers: Vec<_> = asked
            .iter()
            .map(|signals| signals.counted.subscribe())
            .collect();
        for signals in &asked {
            signals.count_now.notify_one();
        }
        let counted = receivers.iter_mut().map(|one| Box::pin(one.changed()));
        // Whether it was in time is seen by the offset.
        let _ = timeout(most, select_all(counted)).await;
        true
    }

    /// Remembers the segment of a writer that has ended, and has counted all that it wrote: nothing is written to it any
    /// more but by whoever takes it from here.
    pub(super) fn ended(&self, upload: &Model, segment: OpenSegment) {
        let ended = EndedWriter {
            segment,
            fence: upload.fence,
            offset: upload.bytes_received,
        };
        let mut all = lock(&self.ended);
        all.insert(upload.id, ended);
        if all.len() > MAX_ENDED {
            all.pop_first();
        }
    }

    /// The segment to continue, for a writer that has just acquired `upload`: none when any other has acquired it since.
    pub(super) fn take_ended(&self, upload: &Model) -> Option<OpenSegment> {
        let ended = lock(&self.ended).remove(&upload.id)?;
        let is_next = ended.fence + 1 == upload.fence && ended.offset == upload.bytes_received;
        is_next.then_some(ended.segment)
    }
}

impl ActiveWriter {
    pub(super) fn counted(&self) {
        self.signals.counted.send_replace(());
    }

    pub(super) fn requests(&self) -> CountRequests {
        CountRequests(Some(Arc::clone(&self.signals)))
    }
}

impl Drop for ActiveWriter {
    fn drop(&mut self) {
        let mut at_work = lock(&self.writers.at_work);
        if let Some(writers) = at_work.get_mut(&self.id) {
            writers.retain(|signals| !Arc::ptr_eq(signals, &self.signals));
            if writers.is_empty() {
                at_work.remove(&self.id);
            }
        }
        drop(at_work);
        self.signals.counted.send_replace(());
    }
}

impl CountRequests {
    /// Ends when somebody wants what came to be counted.
    pub(super) async fn requested(&self) {
        match &self.0 {
            Some(signals) => signals.count_now.notified().await,
            None => std::future::pending().await,
        }
    }

    /// For whoever could not do it, and leaves it to the next.
    pub(super) fn pass_on(&self) {
        if let Some(signals) = &self.0 {
            signals.count_now.notify_one();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
