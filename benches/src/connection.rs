//! One connection to the measured server, with one request at a time.
//!
//! Owns address, token, response and timeout of a call. Uses HTTP/1.1 without TLS and rejects https, because the
//! results would include the cost of encryption. The caller drives the connection, not a separate task, so a small
//! request causes no thread switches on the client.

use super::payload::Payload;
use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use landfall_client::ServerArgs;
use secrecy::ExposeSecret;
use serde::de::DeserializeOwned;
use std::{pin::Pin, time::Duration};
use tokio::net::TcpStream;
use url::Url;

/// Timeout for connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum size of a response, in bytes.
const MAX_RESPONSE_LEN: usize = 1024 * 1024;

/// The measured server, as one caller sees it.
#[derive(Debug)]
pub(super) struct Target {
    /// The URL as given, without a trailing slash.
    pub(super) base: Url,
    address: String,
    authority: HeaderValue,
    bearer: Option<HeaderValue>,
}

impl Target {
    pub(super) fn new(server: &ServerArgs) -> anyhow::Result<Self> {
        let base = server.url.clone();
        if base.scheme() != "http" {
            bail!(
                "only http:// URLs can be measured: name the server itself, not a TLS proxy in front of it"
            );
        }
        let host = base.host_str().context("the URL has no host")?;
        let port = base.port_or_known_default().unwrap_or(80);
        let address = format!("{host}:{port}");
        let token = server.token.as_ref().map(|token| token.expose_secret());
        let bearer = token.filter(|token| !token.is_empty()).map(|token| {
            let mut bearer = HeaderValue::try_from(format!("Bearer {token}"))?;
            bearer.set_sensitive(true);
            Ok::<_, anyhow::Error>(bearer)
        });
        Ok(Self {
            authority: address
                .parse()
                .context("the host is not a valid header value")?,
            bearer: bearer
                .transpose()
                .context("the token is not a valid header value")?,
            base,
            address,
        })
    }

    /// Returns a path below the given URL.
    pub(super) fn path(&self, below: &str) -> String {
        format!("{}{below}", self.base.path().trim_end_matches('/'))
    }
}

/// The response of the server.
#[derive(Debug)]
pub(super) struct BenchResponse {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl BenchResponse {
    /// Returns the response if it is a success.
    pub(super) fn done(self, what: &str) -> anyhow::Result<Self> {
        if self.status.is_success() {
            return Ok(self);
        }
        let said = String::from_utf8_lossy(&self.body);
        let said: String = landfall_client::output::plain(&said)
            .chars()
            .take(500)
            .collect();
        bail!("{what}: the server responded with {}: {said}", self.status)
    }

    pub(super) fn json<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        serde_json::from_slice(&self.body).context(
            "this is not the response of a Landfall server (use --foreign for other servers)",
        )
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

type Driver = Pin<Box<http1::Connection<TokioIo<TcpStream>, Payload>>>;

/// A connection that is reopened when the server has closed it.
#[derive(Debug)]
pub(super) struct Connection<'t> {
    pub(super) target: &'t Target,
    open: Option<(SendRequest<Payload>, Driver)>,
    /// Number of responses.
    pub(super) answered: u64,
}

impl<'t> Connection<'t> {
    pub(super) async fn open(target: &'t Target) -> anyhow::Result<Self> {
        let mut connection = Self {
            target,
            open: None,
            answered: 0,
        };
        connection.reopen().await?;
        Ok(connection)
    }

    async fn reopen(&mut self) -> anyhow::Result<()> {
        let address = &self.target.address;
        let connect = TcpStream::connect(address);
        let socket = tokio::time::timeout(CONNECT_TIMEOUT, connect)
            .await
            .with_context(|| format!("{address} does not respond"))?
            .with_context(|| format!("no server responds at {address}"))?;
        socket.set_nodelay(true)?;
        let (sender, driver) = http1::handshake(TokioIo::new(socket)).await?;
        self.open = Some((sender, Box::pin(driver)));
        Ok(())
    }

    /// Whether the connection can send another request.
    async fn is_ready(&mut self) -> bool {
        let Some((sender, driver)) = &mut self.open else {
            return false;
        };
        tokio::select! {
            // Polled first, because only the driver notices that the server has closed.
            biased;
            _ = driver => false,
            ready = sender.ready() => ready.is_ok(),
        }
    }

    /// Sends a request and reads the whole response.
    pub(super) async fn call(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        payload: Payload,
    ) -> anyhow::Result<BenchResponse> {
        let timeout = payload.timeout();
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.target.authority);
        if let Some(bearer) = &self.target.bearer {
            request = request.header(header::AUTHORIZATION, bearer);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(payload)?;
        let response = tokio::time::timeout(timeout, self.exchange(request)).await;
        let response = response.with_context(|| format!("no response within {timeout:?}"))??;
        self.answered += 1;
        Ok(response)
    }

    /// Sends a request on the current connection; also returns whether that has ended.
    async fn attempt(&mut self, request: Request<Payload>) -> (ExchangeResult, bool) {
        let (sender, driver) = self.open.as_mut().expect("the caller has opened it");
        let answered = async {
            match sender.try_send_request(request).await {
                Ok(response) => Ok(read(response).await),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => Err(unsent),
                    None => Ok(Err(error.into_error().into())),
                },
            }
        };
        tokio::pin!(answered);
        tokio::select! {
            biased;
            outcome = &mut answered => (outcome, false),
            // The driver has read everything, possibly including the response.
            _ = driver => (answered.await, true),
        }
    }

    async fn exchange(&mut self, mut request: Request<Payload>) -> anyhow::Result<BenchResponse> {
        // A server may close between two requests, but not every time.
        for _ in 0..3 {
            if !self.is_ready().await {
                self.reopen().await?;
            }
            let (outcome, closed) = self.attempt(request).await;
            if closed {
                self.open = None;
            }
            match outcome {
                Ok(response) => return response.context("the connection was lost"),
                Err(unsent) => {
                    self.open = None;
                    request = unsent;
                }
            }
        }
        bail!("the server closes every connection before it accepts a request")
    }
}

/// The result of a request: a response, an error, or the request itself if nothing of it was sent.
type ExchangeResult = Result<anyhow::Result<BenchResponse>, Request<Payload>>;

async fn read(response: Response<Incoming>) -> anyhow::Result<BenchResponse> {
    let (head, mut incoming) = response.into_parts();
    let mut body = BytesMut::new();
    while let Some(frame) = incoming.frame().await {
        if let Ok(data) = frame?.into_data() {
            if body.len() + data.len() > MAX_RESPONSE_LEN {
                bail!("the response is longer than {MAX_RESPONSE_LEN} bytes");
            }
            body.extend_from_slice(&data);
        }
    }
    Ok(BenchResponse {
        status: head.status,
        headers: head.headers,
        body: body.freeze(),
    })
}
