//! The body of a request as it arrives on the connection: it fails if it pauses for too long, and what no handler read
//! is drained.

use super::timeouts::ActiveRequest;
use crate::api::{
    files::FormError,
    problem::{Code, Problem},
};
use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use http_body_util::BodyStream;
use hyper::body::Incoming;
use landfall_core::{media_policy::MediaPolicyError, quota::QuotaError};
use poem::Body;
use std::{
    error::Error,
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// How long a rejected client may continue to send. If the connection were reset while it sends, it would not read the
/// response (RFC 9112, section 9.6).
const LINGER_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of rejected bodies that are read and discarded per second, on all connections together, and how many of them
/// may be read at once after a pause. Reading as fast as clients send would take the CPU from requests that are served.
const DRAINED_PER_SECOND: u64 = 32 * 1024 * 1024;
const DRAIN_BURST: Duration = Duration::from_millis(250);

/// Limits how fast rejected bodies are drained; clones share the limit.
#[derive(Clone, Debug)]
pub(super) struct DrainRateLimit {
    /// When all bytes admitted so far will have been paid for.
    paid_until: Arc<Mutex<Instant>>,
}

impl Default for DrainRateLimit {
    fn default() -> Self {
        Self {
            paid_until: Arc::new(Mutex::new(Instant::now())),
        }
    }
}

impl DrainRateLimit {
    /// Waits until the next chunk may be read, after one of `len` bytes.
    async fn wait(&self, len: usize) {
        let cost = Duration::from_nanos(len as u64 * 1_000_000_000 / DRAINED_PER_SECOND);
        let paid_until = {
            let mut paid_until = self
                .paid_until
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *paid_until = (*paid_until).max(Instant::now()) + cost;
            *paid_until
        };
        if let Some(at) = paid_until.checked_sub(DRAIN_BURST) {
            sleep_until(at).await;
        }
    }
}

/// The body paused for longer than `server.idle_timeout`.
#[derive(Debug, thiserror::Error)]
#[error("the body paused for longer than {0:?}")]
pub(in crate::api) struct BodyStalled(pub Duration);

/// The bytes of a request body, with an idle timeout.
#[derive(Debug)]
pub(super) struct IdleTimeoutBody {
    /// `None` once the body has ended or failed.
    body: Option<BodyStream<Incoming>>,
    idle: Duration,
    wait: Pin<Box<Sleep>>,
    /// Reading makes hyper send `100 Continue`, which a rejected client must not receive.
    expects: bool,
    started: bool,
    /// Keeps the connection active while the rest of a body arrives, even if the response has been sent.
    active_request: Option<ActiveRequest>,
    drain_rate: DrainRateLimit,
}

impl IdleTimeoutBody {
    pub(super) fn new(
        body: Incoming,
        idle: Duration,
        expects: bool,
        active_request: ActiveRequest,
        drain_rate: DrainRateLimit,
    ) -> Self {
        Self {
            body: Some(BodyStream::new(body)),
            idle,
            wait: Box::pin(sleep(idle)),
            expects,
            started: false,
            active_request: Some(active_request),
            drain_rate,
        }
    }
}

impl Stream for IdleTimeoutBody {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else {
            return Poll::Ready(None);
        };
        if !this.started {
            this.started = true;
            this.wait.as_mut().reset(Instant::now() + this.idle);
        }
        loop {
            match body.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    this.wait.as_mut().reset(Instant::now() + this.idle);
                    if let Ok(bytes) = frame.into_data() {
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    this.body = None;
                    return Poll::Ready(Some(Err(io::Error::other(error))));
                }
                Poll::Ready(None) => {
                    this.body = None;
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    std::task::ready!(this.wait.as_mut().poll(cx));
                    this.body = None;
                    let stalled = BodyStalled(this.idle);
                    let stalled = io::Error::new(io::ErrorKind::TimedOut, stalled);
                    return Poll::Ready(Some(Err(stalled)));
                }
            }
        }
    }
}

impl Drop for IdleTimeoutBody {
    fn drop(&mut self) {
        let Some(mut body) = self.body.take() else {
            return;
        };
        if (self.expects && !self.started) || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let (active_request, rate) = (self.active_request.take(), self.drain_rate.clone());
        tokio::spawn(async move {
            let _active = active_request;
            let rest = async {
                while let Some(Ok(frame)) = body.next().await {
                    let len = frame.data_ref().map_or(0, Bytes::len);
                    drop(frame);
                    rate.wait(len).await;
                }
            };
            // What remains after that is cut off when the connection closes.
            let _ = tokio::time::timeout(LINGER_TIMEOUT, rest).await;
        });
    }
}

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("the body is too large")]
    TooLarge,
    #[error("the body did not arrive in time")]
    TooSlow,
    #[error("the body ended before it was complete")]
    BrokenOff(#[source] io::Error),
}

/// Reads a small body completely. Holds at most `limit` bytes and one more chunk, and fails after `within`, so a client
/// that sends slowly cannot occupy a handler.
///
/// # Errors
/// [`ReadError`].
pub(crate) async fn read_whole(
    body: Body,
    limit: usize,
    within: Duration,
) -> Result<Bytes, ReadError> {
    let mut pieces = std::pin::pin!(body.into_bytes_stream());
    let gather = async {
        let mut whole = BytesMut::new();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(ReadError::BrokenOff)?;
            if whole.len() + piece.len() > limit {
                return Err(ReadError::TooLarge);
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    };
    tokio::time::timeout(within, gather)
        .await
        .unwrap_or(Err(ReadError::TooSlow))
}

/// The problem for a body that ended early.
pub(in crate::api) fn interrupted(cause: &(dyn Error + 'static)) -> Problem {
    if let Some(stalled) = find::<BodyStalled>(cause) {
        return Problem::new(
            Code::RequestTimeout,
            format!("No body bytes arrived for {:?}.", stalled.0),
        );
    }
    if let Some(error) = find::<FormError>(cause) {
        return error.to_problem();
    }
    if let Some(refused) = find::<MediaPolicyError>(cause) {
        return refused.clone().into();
    }
    if let Some(quota) = find::<QuotaError>(cause) {
        return match quota {
            QuotaError::Exceeded { quota } => QuotaError::Exceeded { quota: *quota }.into(),
            // Logged where counting failed; the client may retry.
            QuotaError::Database(error) => Problem::unavailable(error.to_string()),
        };
    }
    Problem::new(
        Code::MalformedRequest,
        "The body ended early or is not valid HTTP.",
    )
}

/// Searches the chain of causes. An I/O error does not return its inner error from `source`.
fn find<'e, T: Error + 'static>(cause: &'e (dyn Error + 'static)) -> Option<&'e T> {
    let mut next = Some(cause);
    while let Some(error) = next {
        let inner = error.downcast_ref().and_then(io::Error::get_ref);
        let inner = inner.and_then(|inner| inner.downcast_ref());
        if let Some(found) = inner.or_else(|| error.downcast_ref()) {
            return Some(found);
        }
        next = error.source();
    }
    None
}
