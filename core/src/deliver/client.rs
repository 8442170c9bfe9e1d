//! Sends one POST to a receiver and reads the response.
//!
//! Enforces the limits of a request: connecting may take a third of the time and at most 10 s, the whole request
//! `webhooks.timeout`; of the response body, 4 KiB are read. Redirects are not followed; they count as any other
//! response.

use super::{
    connector::{Connector, connector},
    egress_policy::EgressPolicy,
};
use crate::config::WebhooksConfig;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, Uri, header::RETRY_AFTER};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{self, Client as HyperClient},
    rt::{TokioExecutor, TokioTimer},
};
use std::{error::Error, fmt::Write as _, time::Duration};
use tokio::time::{Instant, timeout_at};

/// Maximum number of bytes of a response body that are read and kept.
pub const MAX_RESPONSE_BODY_LEN: usize = 4096;

/// Maximum time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait for the response body once the status is known. The status decides; the body is only informative.
const BODY_TIMEOUT: Duration = Duration::from_secs(3);

/// How long an idle connection is kept. The address was vetted on connect, and is resolved again after this.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum size of a response head, in bytes.
const MAX_RESPONSE_HEAD_LEN: usize = 64 * 1024;

/// Posts to receivers; cheap to clone, with one connection pool per receiver.
#[derive(Clone, Debug)]
pub(super) struct WebhookClient {
    http: HyperClient<Connector, Full<Bytes>>,
    timeout: Duration,
}

/// A receiver's response.
#[derive(Clone, Debug)]
pub(super) struct WebhookResponse {
    pub(super) status: u16,
    pub(super) retry_after: Option<String>,
    /// The first 4 KiB as text. Invalid UTF-8 is replaced, and so is NUL, which PostgreSQL cannot store in text.
    pub(super) body: Option<String>,
}

/// Why there was no response.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    #[error("no response within {0:?}")]
    TimedOut(Duration),
    #[error("the request cannot be made")]
    Request(#[from] http::Error),
    #[error("the request failed")]
    Transport(#[from] legacy::Error),
}

impl WebhookClient {
    pub(super) fn new(config: &WebhooksConfig) -> Self {
        let connect_timeout = CONNECT_TIMEOUT.min(config.timeout / 3);
        let policy = EgressPolicy::new(&config.allow_networks);
        let idle = usize::try_from(config.endpoint_concurrency).unwrap_or(usize::MAX);
        let http = HyperClient::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE_TIMEOUT)
            .pool_max_idle_per_host(idle)
            .http1_max_buf_size(MAX_RESPONSE_HEAD_LEN)
            .build(connector(policy, config.proxy.clone(), connect_timeout));
        Self {
            http,
            timeout: config.timeout,
        }
    }

    /// Posts `body`, which is sent byte for byte.
    pub(super) async fn post(
        &self,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<WebhookResponse, PostError> {
        let deadline = Instant::now() + self.timeout;
        let uri = Uri::try_from(url).map_err(http::Error::from)?;
        let mut request = Request::post(uri).body(Full::new(body))?;
        *request.headers_mut() = headers;
        let response = timeout_at(deadline, self.http.request(request))
            .await
            .map_err(|_| PostError::TimedOut(self.timeout))??;
        let body_deadline = deadline.min(Instant::now() + BODY_TIMEOUT);
        Ok(answer(response, body_deadline).await)
    }
}

/// Reads a short body to its end, so that the connection can be reused; of a longer, slow or broken body, what has
/// arrived.
async fn answer(response: Response<Incoming>, deadline: Instant) -> WebhookResponse {
    let (head, mut body) = response.into_parts();
    let mut read = Vec::new();
    while read.len() <= MAX_RESPONSE_BODY_LEN {
        let Ok(Some(Ok(frame))) = timeout_at(deadline, body.frame()).await else {
            break;
        };
        read.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
    }
    read.truncate(MAX_RESPONSE_BODY_LEN);
    WebhookResponse {
        status: head.status.as_u16(),
        retry_after: head
            .headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned),
        body: (!read.is_empty()).then(|| text(&read)),
    }
}

/// Converts bytes to text that both databases can store, at most [`MAX_RESPONSE_BODY_LEN`] bytes of it; each
/// replacement character takes three.
fn text(bytes: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(bytes).replace('\0', "\u{fffd}");
    text.truncate(text.floor_char_boundary(MAX_RESPONSE_BODY_LEN));
    text
}

/// The error and its causes on one line, as shown in the log of the delivery.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let text = next.to_string();
        if !line.ends_with(&text) {
            // Writing to a `String` cannot fail.
            let _ = write!(line, ": {text}");
        }
        cause = next.source();
    }
    self::text(line.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_become_text_that_databases_hold() {
        assert_eq!(text(b"ok\0\xff"), "ok\u{fffd}\u{fffd}");
        assert!(text(&[0xff; MAX_RESPONSE_BODY_LEN]).len() <= MAX_RESPONSE_BODY_LEN);
    }
}
