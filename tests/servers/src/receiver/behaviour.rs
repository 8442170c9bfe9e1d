//! What a receiver does with a request.

use std::error::Error;
use std::future::pending;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::header::{LOCATION, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use crate::listener::{Body, Reset};

const CHUNK: u64 = 64 * 1024;

/// How a request is treated after it was read and written down.
#[derive(Debug, Clone)]
pub struct Behaviour {
    delay: Duration,
    end: End,
    status: StatusCode,
    headers: HeaderMap,
    content: Content,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Answer,
    Reset,
    Never,
}

#[derive(Debug, Clone)]
enum Content {
    Bytes(Bytes),
    Filler(u64),
    Drip(Duration),
}

impl Behaviour {
    /// Responds with a status.
    ///
    /// # Panics
    /// If it is not an HTTP status.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self {
            delay: Duration::ZERO,
            end: End::Answer,
            status: StatusCode::from_u16(status).expect("an HTTP status is 100 to 999"),
            headers: HeaderMap::new(),
            content: Content::Bytes(Bytes::new()),
        }
    }

    /// Responds with 410, which disables the endpoint.
    #[must_use]
    pub fn gone() -> Self {
        Self::status(410)
    }

    /// Responds with `status` and `Retry-After` in seconds.
    ///
    /// # Panics
    /// If it is not an HTTP status.
    #[must_use]
    pub fn retry_after(status: u16, seconds: u64) -> Self {
        Self::status(status).header(RETRY_AFTER.as_str(), &seconds.to_string())
    }

    /// Responds with 302 to another URL.
    ///
    /// # Panics
    /// If it cannot stand in a header.
    #[must_use]
    pub fn redirect(url: &str) -> Self {
        Self::status(302).header(LOCATION.as_str(), url)
    }

    /// Responds with 200 after `delay`.
    #[must_use]
    pub fn stall(delay: Duration) -> Self {
        Self::status(200).after(delay)
    }

    /// Keeps the connection open and never responds.
    #[must_use]
    pub fn hang() -> Self {
        Self {
            end: End::Never,
            ..Self::status(200)
        }
    }

    /// Resets the connection once the whole request was read.
    #[must_use]
    pub fn reset() -> Self {
        Self {
            end: End::Reset,
            ..Self::status(200)
        }
    }

    /// Responds with 200 and a body of `length` bytes.
    #[must_use]
    pub fn big(length: u64) -> Self {
        Self {
            content: Content::Filler(length),
            ..Self::status(200)
        }
    }

    /// Responds with 200 and an endless body: one byte every `interval`.
    #[must_use]
    pub fn drip(interval: Duration) -> Self {
        Self {
            content: Content::Drip(interval),
            ..Self::status(200)
        }
    }

    /// With one more header.
    ///
    /// # Panics
    /// If the name or the value is none.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("not a header's name");
        self.headers.append(
            name,
            HeaderValue::from_str(value).expect("not a header's value"),
        );
        self
    }

    /// With this body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.content = Content::Bytes(body.into());
        self
    }

    /// Not before `delay` has passed.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    pub(crate) async fn answer(self) -> Result<Response<Body>, Reset> {
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        match self.end {
            End::Answer => {}
            End::Reset => return Err(Reset),
            End::Never => pending().await,
        }
        let mut response = Response::new(self.content.into_body());
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        Ok(response)
    }
}

impl Content {
    fn into_body(self) -> Body {
        match self {
            Self::Bytes(bytes) => http_body_util::Full::new(bytes)
                .map_err(|never| match never {})
                .boxed_unsync(),
            Self::Filler(length) => StreamBody::new(stream::unfold(length, |left| async move {
                let size = left.min(CHUNK);
                let chunk = vec![b'x'; usize::try_from(size).ok()?];
                (size > 0).then(|| (frame(chunk.into()), left - size))
            }))
            .boxed_unsync(),
            Self::Drip(interval) => StreamBody::new(stream::unfold((), move |()| async move {
                tokio::time::sleep(interval).await;
                Some((frame(Bytes::from_static(b".")), ()))
            }))
            .boxed_unsync(),
        }
    }
}

fn frame(data: Bytes) -> Result<Frame<Bytes>, Box<dyn Error + Send + Sync>> {
    Ok(Frame::data(data))
}
