//! A body as it comes in, cut where what came is to be made durable and counted.

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

/// The bytes a client sends.
pub type UploadBytes = BoxStream<'static, Result<Bytes, Box<dyn Error + Send + Sync>>>;

/// How much of a body is at most not yet counted, while it flows.
#[derive(Clone, Copy, Debug)]
pub(super) struct CountingPolicy {
    /// In bytes.
    pub(super) size: u64,
    pub(super) time: Duration,
    /// When nothing comes for so long, what has come is counted.
    pub(super) pause: Duration,
}

/// Why a stretch of the body ended.
#[derive(Debug)]
pub(super) enum StretchEnd {
    /// It was time to count what came; more may follow.
    Due,
    /// Nothing came for [`CountingPolicy::pause`].
    Paused,
    /// The body is over.
    Whole,
    Broken(Box<dyn Error + Send + Sync>),
    /// Nothing came for as long as a body may pause.
    Stalled,
    /// The writer was told to stop.
    Stopped,
}

fn body(locked: &mut Mutex<UploadBytes>) -> &mut UploadBytes {
    locked.get_mut().unwrap_or_else(PoisonError::into_inner)
}

/// A body, taken stretch by stretch.
pub(super) struct BodyStream {
    /// Behind a lock that is never taken: a body may be handed from thread to thread, but not shared.
    body: Mutex<UploadBytes>,
    /// What came while the writer waited for the client to go on.
    waiting: Option<Bytes>,
    stop: CancellationToken,
    pace: Option<CountingPolicy>,
    remaining_pause: Duration,
    count_requests: CountRequests,
    ended: StretchEnd,
}

impl BodyStream {
    /// Without a pace the body is one stretch, and `count_requests` end none.
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

    /// Cancelled by whoever wants the writer to stop.
    pub(super) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    /// The next stretch. It never fails: why it ended is told by [`Self::ended`], and what came is good.
    pub(super) fn stretch(&mut self) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
        self.ended = StretchEnd::Due;
        let began = Instant::now();
        stream::unfold((self, 0_u64), move |(source, taken)| async move {
            let bytes = source.next(began, taken).await?;
            let taken = taken + bytes.len() as u64;
            Some((Ok(bytes), (source, taken)))
        })
    }

    /// Why the last stretch ended, once.
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

    /// What of these bytes still belongs to the stretch; the rest waits for the next.
    fn cut(&mut self, mut bytes: Bytes, taken: u64) -> Bytes {
        let size = self.pace.map_or(u64::MAX, |pace| pace.size);
        let room = usize::try_from(size - taken).unwrap_or(usize::MAX);
        if bytes.len() > room {
            self.waiting = Some(bytes.split_off(room));
        }
        bytes
    }

    /// Waits, for at most `time`, until a client that paused goes on. [`StretchEnd::Due`] when it did,
    /// [`StretchEnd::Paused`] when it did not.
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

    /// How long a body may pause.
    pub(super) fn remaining_pause(&self) -> Duration {
        self.remaining_pause
    }
}
