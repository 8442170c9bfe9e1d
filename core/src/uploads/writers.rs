//! The active writers of this process: a request for the offset of an upload makes them count what they have received.
//!
//! Also remembers the segments of writers that have ended, which the next append in this process may continue. Both are
//! hints: a process without them reads what is counted, and starts a segment of its own.

use super::write_lease::OpenSegment;
use entity::{UploadId, upload::Model};
use futures::future::select_all;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};

/// Maximum number of remembered segments. Each is a file in staging; forgetting one costs nothing.
const MAX_ENDED: usize = 10_000;

/// Shared by all requests of a process.
#[derive(Clone, Debug, Default)]
pub(super) struct ActiveWriters {
    at_work: Arc<Mutex<HashMap<UploadId, Vec<Arc<WriterSignals>>>>>,
    /// Ids contain the time (UUIDv7, RFC 9562), so the first is the oldest.
    ended: Arc<Mutex<BTreeMap<UploadId, EndedWriter>>>,
}

#[derive(Debug, Default)]
struct WriterSignals {
    count_now: Notify,
    counted: watch::Sender<()>,
    /// Whether the writer has nothing to count, or counts its body only as a whole.
    ignores_requests: AtomicBool,
}

/// Where a writer has ended.
#[derive(Clone, Copy, Debug)]
struct EndedWriter {
    segment: OpenSegment,
    fence: i64,
    offset: i64,
}

/// Marks a writer as active until dropped.
#[derive(Debug)]
pub(super) struct ActiveWriter {
    writers: ActiveWriters,
    id: UploadId,
    signals: Arc<WriterSignals>,
}

/// Requests that interrupt a writer's body to count its bytes; `None` for bodies that count only as a whole.
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

    /// Makes the active writers of an upload in this process count their bytes, and waits until one has: for at most
    /// `most` if one of them will, else for a `moment`. Returns false when there is none.
    pub(super) async fn count_now(&self, id: UploadId, moment: Duration, most: Duration) -> bool {
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
        let will_count =
            |signals: &Arc<WriterSignals>| !signals.ignores_requests.load(Ordering::Acquire);
        let wait = match asked.iter().any(will_count) {
            true => most,
            false => moment,
        };
        let counted = receivers.iter_mut().map(|one| Box::pin(one.changed()));
        // The offset shows whether it was in time.
        let _ = timeout(wait, select_all(counted)).await;
        true
    }

    /// Remembers the segment of a writer that has ended and has counted everything it wrote. From now on only the
    /// writer that takes it from here may write to it.
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

    /// Returns the segment to continue for a writer that has just acquired `upload`; `None` when another writer has
    /// acquired it since.
    pub(super) fn take_segment(&self, upload: &Model) -> Option<OpenSegment> {
        let ended = lock(&self.ended).remove(&upload.id)?;
        let is_next = ended.fence + 1 == upload.fence && ended.offset == upload.bytes_received;
        is_next.then_some(ended.segment)
    }
}

impl ActiveWriter {
    /// False while a request to count what came changes nothing.
    pub(super) fn set_counts_on_request(&self, counts: bool) {
        let ignores_requests = &self.signals.ignores_requests;
        ignores_requests.store(!counts, Ordering::Release);
    }

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
    /// Returns when a request asks for the received bytes to be counted.
    pub(super) async fn requested(&self) {
        match &self.0 {
            Some(signals) => signals.count_now.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Passes the request on to the next writer, if this one could not count.
    pub(super) fn pass_on(&self) {
        if let Some(signals) = &self.0 {
            signals.count_now.notify_one();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
