//! A request's body as it comes off the connection: it may not pause too long, and what nobody wanted is let run out.

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
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep};

/// How long a client that was refused may go on sending: one that is reset while it sends does not read its answer
/// (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(5);

/// The body paused longer than `server.idle_timeout`.
#[derive(Debug, thiserror::Error)]
#[error("the body paused for longer than {0:?}")]
pub(in crate::api) struct Stalled(pub Duration);

/// The bytes of a request's body.
#[derive(Debug)]
pub(super) struct IdleTimeoutBody {
    /// None once it has ended, or failed.
    body: Option<BodyStream<Incoming>>,
    idle: Duration,
    wait: Pin<Box<Sleep>>,
    /// Reading makes hyper answer `Expect: 100-continue`, which a refused client must not hear.
    expects: bool,
    begun: bool,
    /// What still comes of a body is not the next request, though the answer may be sent.
    beat: Option<ActiveRequest>,
}

impl IdleTimeoutBody {
    pub(super) fn new(body: Incoming, idle: Duration, expects: bool, beat: ActiveRequest) -> Self {
        Self {
            body: Some(BodyStream::new(body)),
            idle,
            wait: Box::pin(sleep(idle)),
            expects,
            begun: false,
            beat: Some(beat),
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
        if !this.begun {
            this.begun = true;
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
                    let stalled = Stalled(this.idle);
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
        if (self.expects && !self.begun) || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let beat = self.beat.take();
        tokio::spawn(async move {
            let _beat = beat;
            let rest = async { while let Some(Ok(_)) = body.next().await {} };
            // What is left after it is cut off with the connection.
            let _ = tokio::time::timeout(LINGER, rest).await;
        });
    }
}

/// Why a body is not there to be looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("the body is larger than it may be")]
    TooLarge,
    #[error("the body did not arrive in time")]
    TooSlow,
    #[error("the body ended before it was complete")]
    BrokenOff(#[source] io::Error),
}

/// A small body, whole. No more than `limit` bytes and one piece of it are ever held, and a client that sends little by
/// little does not hold a handler for longer than `within`.
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

/// What a body that ended early is answered with.
pub(in crate::api) fn broken_off(cause: &(dyn Error + 'static)) -> Problem {
    if let Some(stalled) = find::<Stalled>(cause) {
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
            // Logged where the count failed; the client may try again.
            QuotaError::Database(error) => Problem::unavailable(error.to_string()),
        };
    }
    Problem::new(
        Code::MalformedRequest,
        "The body ended early or is not valid HTTP.",
    )
}

/// Looks among the causes. An I/O error hides what it was made of from `source`.
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
