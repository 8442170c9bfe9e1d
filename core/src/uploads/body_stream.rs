//! Splits a body into stretches, after each of which the received bytes are made durable and counted.

use super::writers::CountRequests;
use bytes::Bytes;
use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use std::{
    convert::Infallible,
    error::Error,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The bytes sent by a client.
pub type UploadBytes = BoxStream<'static, Result<Bytes, Box<dyn Error + Send + Sync>>>;

/// How much of a body may be uncounted while it is received.
#[derive(Clone, Copy, Debug)]
pub(super) struct CountingPolicy {
    /// In bytes.
    pub(super) size: u64,
    pub(super) time: Duration,
    /// If nothing is received for this long, the bytes so far are counted.
    pub(super) pause: Duration,
}

/// Why a stretch of the body ended.
#[derive(Debug)]
pub(super) enum StretchEnd {
    /// The bytes are due to be counted; more may follow.
    Due,
    /// Nothing was received for [`CountingPolicy::pause`].
    Paused,
    /// The body is complete.
    Whole,
    Broken(Box<dyn Error + Send + Sync>),
    /// Nothing was received for longer than a body may pause.
    Stalled,
    /// The writer was told to stop.
    Stopped,
}

fn body(locked: &mut Mutex<UploadBytes>) -> &mut UploadBytes {
    locked.get_mut().unwrap_or_else(PoisonError::into_inner)
}

/// A body, read stretch by stretch.
pub(super) struct BodyStream {
    /// The lock is never contended: it makes a body that may move between threads, but not be shared, `Sync`.
    body: Mutex<UploadBytes>,
    /// Bytes received while the writer waited for the client to continue.
    waiting: Option<Bytes>,
    stop: CancellationToken,
    pace: Option<CountingPolicy>,
    remaining_pause: Duration,
    count_requests: CountRequests,
    ended: StretchEnd,
}

impl BodyStream {
    /// Without a policy the body is one stretch, and `count_requests` do not end it.
    pub(super) fn new(
        body: UploadBytes,
        stop: CancellationToken,
        pace: Option<CountingPolicy>,
        remaining_pause: Duration,
        count_requests: CountRequests,
    ) -> Self {
        Self {
            body: Mutex::new(body),
            waiting: None,
            stop,
            pace,
            remaining_pause,
            count_requests,
            ended: StretchEnd::Due,
        }
    }

    /// Cancelled to stop the writer.
    pub(super) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// Returns the next stretch. It never fails: [`Self::ended`] tells why it ended, and the received bytes are valid.
    pub(super) fn stretch(&mut self) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
        self.ended = StretchEnd::Due;
        let began = Instant::now();
        stream::unfold((self, 0_u64), move |(source, taken)| async move {
            let bytes = source.next(began, taken).await?;
            let taken = taken + bytes.len() as u64;
            Some((Ok(bytes), (source, taken)))
        })
    }

    /// Returns why the last stretch ended, once.
    pub(super) fn ended(&mut self) -> StretchEnd {
        std::mem::replace(&mut self.ended, StretchEnd::Stopped)
    }

    async fn next(&mut self, began: Instant, taken: u64) -> Option<Bytes> {
        let (wait, otherwise) = match self.pace {
            Some(pace) if taken >= pace.size || (taken > 0 && began.elapsed() >= pace.time) => {
                return None;
            }
            Some(pace) => (pace.pause, StretchEnd::Paused),
            None => (self.remaining_pause, StretchEnd::Stalled),
        };
        if let Some(bytes) = self.waiting.take() {
            return Some(self.cut(bytes, taken));
        }
        let may_count = self.pace.is_some() && taken > 0;
        self.ended = tokio::select! {
            biased;
            () = self.stop.cancelled() => StretchEnd::Stopped,
            next = body(&mut self.body).next() => match next {
                Some(Ok(bytes)) => return Some(self.cut(bytes, taken)),
                Some(Err(error)) => StretchEnd::Broken(error),
                None => StretchEnd::Whole,
            },
            () = self.count_requests.requested(), if may_count => StretchEnd::Due,
            () = tokio::time::sleep(wait) => otherwise,
        };
        None
    }

    /// Returns the part of these bytes that belongs to the stretch; the rest is kept for the next.
    fn cut(&mut self, mut bytes: Bytes, taken: u64) -> Bytes {
        let size = self.pace.map_or(u64::MAX, |pace| pace.size);
        let room = usize::try_from(size - taken).unwrap_or(usize::MAX);
        if bytes.len() > room {
            self.waiting = Some(bytes.split_off(room));
        }
        bytes
    }

    /// Waits at most `time` for a paused client to continue. Returns [`StretchEnd::Due`] if it did,
    /// [`StretchEnd::Paused`] if not.
    pub(super) async fn resumed(&mut self, time: Duration) -> StretchEnd {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => StretchEnd::Stopped,
            next = body(&mut self.body).next() => match next {
                Some(Ok(bytes)) => {
                    self.waiting = Some(bytes);
                    StretchEnd::Due
                }
                Some(Err(error)) => StretchEnd::Broken(error),
                None => StretchEnd::Whole,
            },
            () = tokio::time::sleep(time) => StretchEnd::Paused,
        }
    }

    /// How long the body may still pause.
    pub(super) fn remaining_pause(&self) -> Duration {
        self.remaining_pause
    }
}
