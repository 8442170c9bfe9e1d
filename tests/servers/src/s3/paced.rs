//! A rate-limited body, and a truncated one.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Body as _, Frame, SizeHint};

use super::faults::Faults;
use crate::listener::Body;

// Often enough for a steady flow of bytes.
const STEPS_PER_SECOND: u64 = 20;

/// `body` at the rate of `faults`, which is read again for every step, so that removing the fault takes effect
/// immediately.
pub(crate) fn paced(body: Body, faults: Arc<Faults>) -> Body {
    let size = body.size_hint();
    let steps = stream::unfold((body, Bytes::new()), move |(mut body, mut left)| {
        let faults = Arc::clone(&faults);
        async move {
            if left.is_empty() {
                match body.frame().await? {
                    Ok(frame) => match frame.into_data() {
                        Ok(data) => left = data,
                        Err(trailers) => return Some((Ok(trailers), (body, left))),
                    },
                    Err(error) => return Some((Err(error), (body, left))),
                }
            }
            let step = match faults.pace() {
                None => left.len(),
                Some(pace) => {
                    let step = usize::try_from(pace / STEPS_PER_SECOND).unwrap_or(usize::MAX);
                    let step = step.clamp(1, left.len().max(1));
                    let bytes = u32::try_from(step).unwrap_or(u32::MAX);
                    faults
                        .unless_healed(Duration::from_secs(1) * bytes / ratio(pace))
                        .await;
                    step.min(left.len())
                }
            };
            let data = left.copy_to_bytes(step);
            Some((Ok(Frame::data(data)), (body, left)))
        }
    });
    Measured {
        frames: StreamBody::new(steps).boxed_unsync(),
        size,
    }
    .boxed_unsync()
}

/// A stream of frames that keeps the length of the original body: without it s3s responds with 411 to an upload, and to
/// a request without a body.
struct Measured {
    frames: Body,
    size: SizeHint,
}

impl hyper::body::Body for Measured {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.frames).poll_frame(context)
    }

    fn size_hint(&self) -> SizeHint {
        self.size
    }
}

fn ratio(pace: u64) -> u32 {
    u32::try_from(pace).unwrap_or(u32::MAX)
}

/// `body` up to `length` bytes, and then an error, at which the connection is closed.
pub(crate) fn broken_off(body: Body, length: u64) -> Body {
    let frames = stream::unfold(Some((body, length)), |state| async {
        let (mut body, left) = state?;
        let mut data = match body.frame().await? {
            Ok(frame) => frame.into_data().unwrap_or_default(),
            Err(error) => return Some((Err(error), None)),
        };
        if left == 0 {
            let error: Box<dyn Error + Send + Sync> = "broken off on purpose".into();
            return Some((Err(error), None));
        }
        data.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        let left = left - data.len() as u64;
        Some((Ok(Frame::data(data)), Some((body, left))))
    });
    StreamBody::new(frames).boxed_unsync()
}
