//! Request bodies: one block of random bytes, repeated, from memory.
//!
//! Nothing is read from disk or generated during the measurement, and a body of any length uses no memory, so the
//! client takes few resources from the server.

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use landfall_core::digest::{Sha256Digest, Sha256State};
use std::{
    convert::Infallible,
    ops::Range,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::Interval;

/// Small enough for the CPU cache, large enough for one system call.
const BLOCK: usize = 256 * 1024;

/// The bytes of every upload, of whatever length.
#[derive(Clone, Debug)]
pub(super) struct Content {
    block: Bytes,
    /// Number of bytes passed to connections.
    pub(super) sent: Arc<AtomicU64>,
}

impl Content {
    pub(super) fn new() -> Self {
        let mut block = vec![0; BLOCK];
        rand::fill(&mut block[..]);
        Self {
            block: block.into(),
            sent: Arc::default(),
        }
    }

    /// Returns the digest of the first `size` bytes.
    pub(super) fn digest(&self, size: u64) -> Sha256Digest {
        let (mut hash, mut at) = (Sha256State::default(), 0);
        while at < size {
            let piece = self.piece(at..size);
            hash.update(&piece);
            at += piece.len() as u64;
        }
        hash.digest()
    }

    /// Returns these bytes as a body.
    pub(super) fn payload(&self, range: Range<u64>) -> Payload {
        Payload {
            before: Bytes::new(),
            content: Some(self.clone()),
            range,
            after: Bytes::new(),
            pace: None,
        }
    }

    /// Returns as many of these bytes as are contiguous in the block.
    fn piece(&self, range: Range<u64>) -> Bytes {
        let start = usize::try_from(range.start % BLOCK as u64).expect("less than a block");
        let length = (range.end - range.start).min((BLOCK - start) as u64);
        let length = usize::try_from(length).expect("at most a block");
        self.block.slice(start..start + length)
    }
}

/// The body of a request.
#[derive(Debug)]
pub(super) struct Payload {
    before: Bytes,
    content: Option<Content>,
    range: Range<u64>,
    after: Bytes,
    pace: Option<Pacing>,
}

/// Limits the rate of a body.
#[derive(Debug)]
struct Pacing {
    bytes: u64,
    every: Interval,
}

impl Payload {
    pub(super) fn empty() -> Self {
        Self::text(Bytes::new())
    }

    pub(super) fn text(text: impl Into<Bytes>) -> Self {
        Self {
            before: text.into(),
            content: None,
            range: 0..0,
            after: Bytes::new(),
            pace: None,
        }
    }

    /// Wraps the body, as in a form.
    pub(super) fn between(mut self, before: String, after: String) -> Self {
        self.before = before.into();
        self.after = after.into();
        self
    }

    /// Sends this many bytes per tick.
    pub(super) fn paced(mut self, bytes: u64, every: Interval) -> Self {
        self.pace = Some(Pacing { bytes, every });
        self
    }

    pub(super) fn len(&self) -> u64 {
        (self.range.end - self.range.start) + (self.before.len() + self.after.len()) as u64
    }

    /// Timeout for sending the body and reading the response: two minutes, more for long or paced bodies.
    pub(super) fn timeout(&self) -> Duration {
        let held_back = self.pace.as_ref().map_or(Duration::ZERO, |pace| {
            let steps = self.len().div_ceil(pace.bytes);
            let steps = u32::try_from(steps).unwrap_or(u32::MAX);
            pace.every.period().saturating_mul(steps)
        });
        Duration::from_secs(120 + self.len() / (1024 * 1024)).saturating_add(held_back)
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if !this.before.is_empty() {
            let before = std::mem::take(&mut this.before);
            return Poll::Ready(Some(Ok(Frame::data(before))));
        }
        if let Some(content) = &this.content
            && !this.range.is_empty()
        {
            let mut next = this.range.clone();
            if let Some(pace) = &mut this.pace {
                ready!(pace.every.poll_tick(context));
                next.end = next.end.min(next.start + pace.bytes);
            }
            let piece = content.piece(next);
            this.range.start += piece.len() as u64;
            content
                .sent
                .fetch_add(piece.len() as u64, Ordering::Relaxed);
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let after = std::mem::take(&mut this.after);
        Poll::Ready((!after.is_empty()).then(|| Ok(Frame::data(after))))
    }

    fn is_end_stream(&self) -> bool {
        self.len() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn collected(payload: Payload) -> Vec<u8> {
        payload.collect().await.unwrap().to_bytes().to_vec()
    }

    #[tokio::test]
    async fn pieces_make_the_whole() {
        let content = Content::new();
        let size = 3 * BLOCK as u64 + 17;
        let whole = collected(content.payload(0..size)).await;
        assert_eq!(whole.len() as u64, size);
        assert_eq!(Sha256Digest::compute(&whole), content.digest(size));
        let mut pieces = Vec::new();
        for start in (0..size).step_by(100_000) {
            pieces.extend(collected(content.payload(start..size.min(start + 100_000))).await);
        }
        assert!(pieces == whole);
        assert_eq!(content.sent.load(Ordering::Relaxed), 2 * size);
    }

    #[tokio::test]
    async fn a_body_is_as_long_as_it_says() {
        let payload = Content::new().payload(5..25);
        let payload = payload.between("<".to_owned(), ">".to_owned());
        assert_eq!(payload.size_hint().exact(), Some(22));
        let sent = collected(payload).await;
        assert_eq!((sent.len(), sent[0], sent[21]), (22, b'<', b'>'));
        assert!(Payload::empty().is_end_stream());
    }

    #[tokio::test]
    async fn a_slow_body_waits_for_each_tick() {
        let began = tokio::time::Instant::now();
        let every = tokio::time::interval(Duration::from_millis(50));
        let payload = Content::new().payload(0..5000).paced(1024, every);
        assert_eq!(payload.timeout(), Duration::from_millis(120_250));
        assert_eq!(collected(payload).await.len(), 5000);
        // The first tick is at once.
        assert!(began.elapsed() >= Duration::from_millis(200));
    }
}
