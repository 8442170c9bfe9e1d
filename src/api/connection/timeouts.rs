//! Whether a connection is worth keeping: what it is waiting for, since when, and how much of a head has come.
//!
//! The beginning of a request that came together with the one before it is not told from rest: it has as long as any
//! connection may rest. Over HTTP/2 requests share a connection: it rests while there is none, and it is given up when
//! the client takes nothing more of any answer.

use super::UnreadHead;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// How often a connection that has nothing due is looked at.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How long a connection waits for its client.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeoutLimits {
    /// From the first byte of a request to the end of its headers; and to the first request, from the start.
    pub(super) headers: Duration,
    /// From the end of an answer to the first byte of the next request.
    pub(super) keep_alive: Duration,
    /// How long answers may wait to be read, where requests share a connection.
    pub(super) unread: Duration,
    /// So much of a body is read at once while many others are read in larger pieces, in bytes.
    pub(super) narrow_read: usize,
    /// So long a head may be in any connection, in bytes …
    pub(super) small_head: usize,
    /// … and so long in a few at once: request line and headers together.
    pub(super) head: usize,
}

/// Room for heads that are not small; clones share it.
#[derive(Clone, Debug)]
pub(super) struct LargeHeads(Arc<Semaphore>);

impl LargeHeads {
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Semaphore::new(most)))
    }
}

/// Room for bodies that are read in large pieces; clones share it.
#[derive(Clone, Debug)]
pub(super) struct WideReads(Arc<Semaphore>);

impl WideReads {
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Semaphore::new(most)))
    }
}

/// The life signs of one connection; clones share them.
#[derive(Clone, Debug)]
pub(super) struct ConnectionTimeouts {
    limits: TimeoutLimits,
    large_heads: LargeHeads,
    wide_reads: WideReads,
    state: Arc<Mutex<ConnectionState>>,
    long: Arc<Notify>,
}

#[derive(Debug)]
struct ConnectionState {
    /// Requests whose answer is not sent yet.
    active: usize,
    /// When the last of them ended.
    rests_since: Instant,
    /// When the first byte after that came.
    began: Option<Instant>,
    /// Bytes that came since a request was complete, while none was active.
    head: usize,
    /// Requests share the connection (HTTP/2).
    shared: bool,
    /// Requests that are not answered whole.
    requests: usize,
    /// Their answers of which a piece was handed over and the next one not asked for yet, by number.
    unread: BTreeMap<u64, Instant>,
    next: u64,
    /// Held from when a head is not small any more until the last request of it is answered.
    large: Option<OwnedSemaphorePermit>,
    /// There was no room for it.
    crowded: bool,
    /// Held while the connection may read a body in large pieces.
    wide: Option<OwnedSemaphorePermit>,
}

impl ConnectionTimeouts {
    pub(super) fn new(
        limits: TimeoutLimits,
        large_heads: LargeHeads,
        wide_reads: WideReads,
    ) -> Self {
        let now = Instant::now();
        let state = ConnectionState {
            active: 0,
            rests_since: now,
            began: Some(now),
            head: 0,
            shared: false,
            requests: 0,
            unread: BTreeMap::new(),
            next: 0,
            large: None,
            crowded: false,
            wide: None,
        };
        Self {
            limits,
            large_heads,
            wide_reads,
            state: Arc::new(Mutex::new(state)),
            long: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, ConnectionState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many bytes may come in now; none when a head is as long as it may be and not complete.
    pub(super) fn room(&self) -> usize {
        let mut state = self.state();
        if state.shared {
            return usize::MAX;
        }
        if state.active > 0 {
            if state.wide.is_none() {
                state.wide = Arc::clone(&self.wide_reads.0).try_acquire_owned().ok();
            }
            return match state.wide {
                Some(_) => usize::MAX,
                None => self.limits.narrow_read,
            };
        }
        let small = self.limits.small_head.saturating_sub(state.head);
        if small > 0 {
            return small;
        }
        if state.large.is_none() && !state.crowded {
            let room = Arc::clone(&self.large_heads.0).try_acquire_owned();
            state.large = room.ok();
            state.crowded = state.large.is_none();
        }
        if state.crowded {
            self.long.notify_one();
            return 0;
        }
        self.limits.head.saturating_sub(state.head)
    }

    /// So many bytes came in.
    pub(super) fn received(&self, bytes: usize) {
        let mut state = self.state();
        if state.active > 0 || state.shared {
            return;
        }
        state.began.get_or_insert_with(Instant::now);
        state.head += bytes;
        if state.head >= self.limits.head {
            self.long.notify_one();
        }
    }

    /// Returns when no more of a head is read, and its request is not complete.
    pub(super) async fn head_rejected(&self) -> UnreadHead {
        loop {
            self.long.notified().await;
            let state = self.state();
            if state.active == 0 && state.crowded {
                return UnreadHead::NoRoom;
            }
            if state.active == 0 && state.head >= self.limits.head {
                return UnreadHead::TooLong;
            }
        }
    }

    /// From here on requests share the connection.
    pub(super) fn share(&self) {
        self.state().shared = true;
    }

    /// A request's headers are complete; it is active until this and what there is of its body are dropped.
    pub(super) fn request(&self) -> ActiveRequest {
        let mut state = self.state();
        state.next += 1;
        state.requests += 1;
        let number = Some(state.next);
        drop(state);
        self.active_request(number)
    }

    /// The body of a request comes in.
    pub(super) fn body(&self) -> ActiveRequest {
        self.active_request(None)
    }

    fn active_request(&self, request: Option<u64>) -> ActiveRequest {
        let mut state = self.state();
        state.active += 1;
        state.began = None;
        state.head = 0;
        ActiveRequest {
            timeouts: self.clone(),
            request,
        }
    }

    /// Returns when the client has let the connection wait for too long.
    pub(super) async fn timed_out(&self) {
        loop {
            let now = Instant::now();
            let deadline = self.deadline();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return;
            }
            let next_poll = now + POLL_INTERVAL.min(self.limits.headers);
            tokio::time::sleep_until(
                deadline.map_or(next_poll, |deadline| deadline.min(next_poll)),
            )
            .await;
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let state = self.state();
        match (state.active, state.began) {
            (0, Some(began)) => Some(began + self.limits.headers),
            (0, None) => Some(state.rests_since + self.limits.keep_alive),
            _ if state.shared && state.unread.len() == state.requests => {
                let latest = state.unread.values().max();
                latest.map(|since| *since + self.limits.unread)
            }
            _ => None,
        }
    }
}

/// One request under way.
#[derive(Debug)]
pub(super) struct ActiveRequest {
    timeouts: ConnectionTimeouts,
    /// The number of the request this is the answer of.
    request: Option<u64>,
}

impl ActiveRequest {
    /// A piece of the answer is handed over, and the client is to take it.
    pub(super) fn chunk_sent(&self) {
        if let Some(number) = self.request {
            self.timeouts.state().unread.insert(number, Instant::now());
        }
    }

    /// The next piece is asked for.
    pub(super) fn next_chunk_requested(&self) {
        if let Some(number) = self.request {
            self.timeouts.state().unread.remove(&number);
        }
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        let mut state = self.timeouts.state();
        state.active -= 1;
        state.rests_since = Instant::now();
        if state.active == 0 {
            state.large = None;
            state.wide = None;
        }
        if let Some(number) = self.request {
            state.requests -= 1;
            state.unread.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: TimeoutLimits = TimeoutLimits {
        headers: Duration::from_secs(10),
        keep_alive: Duration::from_secs(75),
        unread: Duration::from_secs(30),
        narrow_read: 50,
        small_head: 100,
        head: 1000,
    };

    fn timeouts() -> ConnectionTimeouts {
        ConnectionTimeouts::new(LIMITS, LargeHeads::new(1), WideReads::new(1))
    }

    /// Whole seconds until the connection is given up.
    fn left(timeouts: &ConnectionTimeouts) -> Option<u64> {
        let left = timeouts.deadline()?.duration_since(Instant::now());
        Some(
            left.as_millis()
                .div_ceil(1000)
                .try_into()
                .expect("it is short"),
        )
    }

    #[test]
    fn a_first_request_must_come_within_the_header_timeout() {
        let timeouts = timeouts();
        timeouts.received(10);
        assert_eq!(left(&timeouts), Some(10));
    }

    #[test]
    fn a_connection_rests_for_the_keep_alive_and_no_longer() {
        let timeouts = timeouts();
        drop(timeouts.request());
        assert_eq!(left(&timeouts), Some(75));
    }

    #[test]
    fn a_second_request_that_has_begun_must_come_within_the_header_timeout() {
        let timeouts = timeouts();
        drop(timeouts.request());
        timeouts.received(10);
        assert_eq!(left(&timeouts), Some(10));
    }

    #[test]
    fn a_request_under_way_may_take_any_time() {
        let timeouts = timeouts();
        let _beat = timeouts.request();
        timeouts.received(10);
        assert_eq!(left(&timeouts), None);
    }

    #[test]
    fn a_shared_connection_is_given_up_when_no_answer_is_read() {
        let timeouts = timeouts();
        timeouts.share();
        let (one, other) = (timeouts.request(), timeouts.request());
        timeouts.received(5000);
        assert_eq!(timeouts.room(), usize::MAX);
        one.chunk_sent();
        assert_eq!(left(&timeouts), None);
        other.chunk_sent();
        assert_eq!(left(&timeouts), Some(30));
        other.next_chunk_requested();
        assert_eq!(left(&timeouts), None);
        drop(other);
        assert_eq!(left(&timeouts), Some(30));
        drop(one);
        timeouts.received(17);
        assert_eq!(left(&timeouts), Some(75));
    }

    #[test]
    fn a_head_has_room_until_its_request_is_complete() {
        let timeouts = timeouts();
        assert_eq!(timeouts.room(), 100);
        timeouts.received(400);
        assert_eq!(timeouts.room(), 600);
        let active_request = timeouts.request();
        timeouts.received(5000);
        assert_eq!(timeouts.room(), usize::MAX);
        drop(active_request);
        assert_eq!(timeouts.room(), 100);
        timeouts.received(1000);
        assert_eq!(timeouts.room(), 0);
    }

    #[test]
    fn bodies_are_read_in_large_pieces_by_a_few_at_once() {
        let wide = WideReads::new(1);
        let timeouts = || ConnectionTimeouts::new(LIMITS, LargeHeads::new(1), wide.clone());
        let (first, second) = (timeouts(), timeouts());
        let (one, _other) = (first.request(), second.request());
        assert_eq!((first.room(), second.room()), (usize::MAX, 50));
        drop(one);
        assert_eq!(second.room(), usize::MAX);
    }

    #[tokio::test]
    async fn large_heads_are_few_at_once_until_they_are_answered() {
        let heads = LargeHeads::new(1);
        let large = || {
            let timeouts = ConnectionTimeouts::new(LIMITS, heads.clone(), WideReads::new(1));
            timeouts.received(100);
            timeouts
        };
        let first = large();
        assert_eq!(first.room(), 900);
        let second = large();
        assert_eq!(second.room(), 0);
        assert_eq!(second.head_rejected().await, UnreadHead::NoRoom);
        drop(first.request());
        assert_eq!(large().room(), 900);
    }
}
