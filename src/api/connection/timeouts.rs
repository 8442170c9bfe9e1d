//! The timeouts of a connection: what it is waiting for, since when, and how much of a request head has arrived.
//!
//! A request that begins in the same read as the previous one cannot be distinguished from an idle connection, so it
//! gets the keep-alive timeout. Over HTTP/2, requests share a connection: it is idle while there is none, and it is
//! closed if the client reads no more of any response.

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

/// How often a connection without a deadline is checked.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How long a connection waits for its client, and how much it reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeoutLimits {
    /// Header timeout: from the first byte of a request to the end of its headers, and from the start of the connection
    /// to the first request.
    pub(super) header_timeout: Duration,
    /// Keep-alive timeout: from the end of a response to the first byte of the next request.
    pub(super) keep_alive: Duration,
    /// Write timeout of connections that requests share.
    pub(super) write_timeout: Duration,
    /// Maximum chunk of a body, in bytes, while many others are read in larger chunks.
    pub(super) narrow_read: usize,
    /// Maximum size of a head on any connection, in bytes …
    pub(super) max_small_head: usize,
    /// … and on a few at a time: request line and headers together.
    pub(super) max_head: usize,
}

/// Permits for large request heads; clones share them.
#[derive(Clone, Debug)]
pub(super) struct LargeHeads(Arc<Semaphore>);

impl LargeHeads {
    pub(super) fn new(max: usize) -> Self {
        Self(Arc::new(Semaphore::new(max)))
    }
}

/// Permits for reading bodies in large chunks; clones share them.
#[derive(Clone, Debug)]
pub(super) struct WideReads(Arc<Semaphore>);

impl WideReads {
    pub(super) fn new(max: usize) -> Self {
        Self(Arc::new(Semaphore::new(max)))
    }
}

/// The activity and deadlines of one connection; clones share them.
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
    /// Number of requests whose response has not been sent.
    active: usize,
    /// When the last one ended.
    idle_since: Instant,
    /// When the first byte after that arrived.
    first_byte_at: Option<Instant>,
    /// Bytes received since the last complete request, while none was active.
    head_bytes: usize,
    /// Whether requests share the connection (HTTP/2).
    shared: bool,
    /// Requests whose response is not complete.
    requests: usize,
    /// Responses that wait for the client to read: a chunk was sent and the next one not requested yet, by request
    /// number.
    pending_chunks: BTreeMap<u64, Instant>,
    next: u64,
    /// Held from the moment a head becomes large until the last of its requests is answered.
    large_permit: Option<OwnedSemaphorePermit>,
    /// Whether no permit was available.
    no_permit: bool,
    /// Held while the connection reads a body in large chunks.
    wide_permit: Option<OwnedSemaphorePermit>,
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
            idle_since: now,
            first_byte_at: Some(now),
            head_bytes: 0,
            shared: false,
            requests: 0,
            pending_chunks: BTreeMap::new(),
            next: 0,
            large_permit: None,
            no_permit: false,
            wide_permit: None,
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

    /// How many bytes may be read now; zero if a head has reached its limit and is incomplete.
    pub(super) fn room(&self) -> usize {
        let mut state = self.state();
        if state.shared {
            return usize::MAX;
        }
        if state.active > 0 {
            if state.wide_permit.is_none() {
                state.wide_permit = Arc::clone(&self.wide_reads.0).try_acquire_owned().ok();
            }
            return match state.wide_permit {
                Some(_) => usize::MAX,
                None => self.limits.narrow_read,
            };
        }
        let small = self.limits.max_small_head.saturating_sub(state.head_bytes);
        if small > 0 {
            return small;
        }
        if state.large_permit.is_none() && !state.no_permit {
            let room = Arc::clone(&self.large_heads.0).try_acquire_owned();
            state.large_permit = room.ok();
            state.no_permit = state.large_permit.is_none();
        }
        if state.no_permit {
            self.long.notify_one();
            return 0;
        }
        self.limits.max_head.saturating_sub(state.head_bytes)
    }

    /// Records that bytes were received.
    pub(super) fn received(&self, bytes: usize) {
        let mut state = self.state();
        if state.active > 0 || state.shared {
            return;
        }
        state.first_byte_at.get_or_insert_with(Instant::now);
        state.head_bytes += bytes;
        if state.head_bytes >= self.limits.max_head {
            self.long.notify_one();
        }
    }

    /// Returns when reading of an incomplete head has stopped.
    pub(super) async fn head_rejected(&self) -> UnreadHead {
        loop {
            self.long.notified().await;
            let state = self.state();
            if state.active == 0 && state.no_permit {
                return UnreadHead::NoRoom;
            }
            if state.active == 0 && state.head_bytes >= self.limits.max_head {
                return UnreadHead::TooLong;
            }
        }
    }

    /// Records that requests share the connection.
    pub(super) fn share(&self) {
        self.state().shared = true;
    }

    /// Records that a request's headers are complete. The request is active until the returned value and its body's are
    /// dropped.
    pub(super) fn request(&self) -> ActiveRequest {
        let mut state = self.state();
        state.next += 1;
        state.requests += 1;
        let number = Some(state.next);
        drop(state);
        self.active_request(number)
    }

    /// Records that the body of a request is arriving.
    pub(super) fn body(&self) -> ActiveRequest {
        self.active_request(None)
    }

    fn active_request(&self, request: Option<u64>) -> ActiveRequest {
        let mut state = self.state();
        state.active += 1;
        state.first_byte_at = None;
        state.head_bytes = 0;
        ActiveRequest {
            timeouts: self.clone(),
            request,
        }
    }

    /// Returns when the client has exceeded a timeout.
    pub(super) async fn timed_out(&self) {
        loop {
            let now = Instant::now();
            let deadline = self.deadline();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return;
            }
            let next_poll = now + POLL_INTERVAL.min(self.limits.header_timeout);
            tokio::time::sleep_until(
                deadline.map_or(next_poll, |deadline| deadline.min(next_poll)),
            )
            .await;
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let state = self.state();
        match (state.active, state.first_byte_at) {
            (0, Some(first_byte_at)) => Some(first_byte_at + self.limits.header_timeout),
            (0, None) => Some(state.idle_since + self.limits.keep_alive),
            _ if state.shared && state.pending_chunks.len() == state.requests => {
                let latest = state.pending_chunks.values().max();
                latest.map(|since| *since + self.limits.write_timeout)
            }
            _ => None,
        }
    }
}

/// One request in progress.
#[derive(Debug)]
pub(super) struct ActiveRequest {
    timeouts: ConnectionTimeouts,
    /// The number of the request, if this is its response.
    request: Option<u64>,
}

impl ActiveRequest {
    /// A chunk of the response was sent, and the client must read it.
    pub(super) fn chunk_sent(&self) {
        if let Some(number) = self.request {
            self.timeouts
                .state()
                .pending_chunks
                .insert(number, Instant::now());
        }
    }

    /// The next chunk was requested, so the client has read.
    pub(super) fn next_chunk_requested(&self) {
        if let Some(number) = self.request {
            self.timeouts.state().pending_chunks.remove(&number);
        }
    }
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        let mut state = self.timeouts.state();
        state.active -= 1;
        state.idle_since = Instant::now();
        if state.active == 0 {
            state.large_permit = None;
            state.wide_permit = None;
        }
        if let Some(number) = self.request {
            state.requests -= 1;
            state.pending_chunks.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: TimeoutLimits = TimeoutLimits {
        header_timeout: Duration::from_secs(10),
        keep_alive: Duration::from_secs(75),
        write_timeout: Duration::from_secs(30),
        narrow_read: 50,
        max_small_head: 100,
        max_head: 1000,
    };

    fn timeouts() -> ConnectionTimeouts {
        ConnectionTimeouts::new(LIMITS, LargeHeads::new(1), WideReads::new(1))
    }

    /// Whole seconds until the connection times out.
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
