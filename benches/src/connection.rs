//! One connection to the measured server, and requests on it, one after another.
//!
//! Owns what a call is: an address, a token, an answer, and how long it may take. Speaks HTTP/1.1 without TLS and
//! refuses https, as the figures would be those of the encryption. The connection is driven by whoever calls, not by a
//! task of its own: a small request then costs the client no change of threads.

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

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);

/// The longest answer that is read, in bytes.
const LONGEST: usize = 1024 * 1024;

/// The measured server, as one caller sees it.
#[derive(Debug)]
pub(super) struct Target {
    /// As the command named it, without a slash at the end.
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
                "only http:// is measured: name the server itself, not what encrypts in front of it"
            );
        }
        let host = base.host_str().context("the URL names no host")?;
        let port = base.port_or_known_default().unwrap_or(80);
        let address = format!("{host}:{port}");
        let token = server.token.as_ref().map(|token| token.expose_secret());
        let bearer = token.filter(|token| !token.is_empty()).map(|token| {
            let mut bearer = HeaderValue::try_from(format!("Bearer {token}"))?;
            bearer.set_sensitive(true);
            Ok::<_, anyhow::Error>(bearer)
        });
        Ok(Self {
            authority: address.parse().context("the host is no header value")?,
            bearer: bearer.transpose().context("the token is no header value")?,
            base,
            address,
        })
    }

    /// The path of something below the URL of the command.
    pub(super) fn path(&self, below: &str) -> String {
        format!("{}{below}", self.base.path().trim_end_matches('/'))
    }
}

/// What the server said.
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    /// Itself, when the server did what it was asked.
    pub(super) fn done(self, what: &str) -> anyhow::Result<Self> {
        if self.status.is_success() {
            return Ok(self);
        }
        let said = String::from_utf8_lossy(&self.body);
        let said: String = landfall_client::output::plain(&said)
            .chars()
            .take(500)
            .collect();
        bail!("{what}: the server answered {}: {said}", self.status)
    }

    pub(super) fn json<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        serde_json::from_slice(&self.body)
            .context("the answer is none of a Landfall server (--foreign measures others)")
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

type Driver = Pin<Box<http1::Connection<TokioIo<TcpStream>, Payload>>>;

/// A connection that is made again when the server has closed it.
#[derive(Debug)]
pub(super) struct Connection<'t> {
    pub(super) target: &'t Target,
    open: Option<(SendRequest<Payload>, Driver)>,
    /// Requests that were answered.
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
        let socket = tokio::time::timeout(CONNECT, connect)
            .await
            .with_context(|| format!("{address} does not answer"))?
            .with_context(|| format!("no server answers at {address}"))?;
        socket.set_nodelay(true)?;
        let (sender, driver) = http1::handshake(TokioIo::new(socket)).await?;
        self.open = Some((sender, Box::pin(driver)));
        Ok(())
    }

    /// True when the connection takes another request.
    async fn is_ready(&mut self) -> bool {
        let Some((sender, driver)) = &mut self.open else {
            return false;
        };
        tokio::select! {
            // First, as only it sees that the server has closed.
            biased;
            _ = driver => false,
            ready = sender.ready() => ready.is_ok(),
        }
    }

    /// Sends a request and reads the whole answer.
    pub(super) async fn call(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&'static str, &str)],
        payload: Payload,
    ) -> anyhow::Result<Answer> {
        let patience = payload.patience();
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
        let answer = tokio::time::timeout(patience, self.exchange(request)).await;
        let answer = answer.with_context(|| format!("no answer within {patience:?}"))??;
        self.answered += 1;
        Ok(answer)
    }

    /// Sends a request on the connection there is; true when that is at its end then.
    async fn attempt(&mut self, request: Request<Payload>) -> (Outcome, bool) {
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
            // It has read all there was, and the answer may be in it.
            _ = driver => (answered.await, true),
        }
    }

    async fn exchange(&mut self, mut request: Request<Payload>) -> anyhow::Result<Answer> {
        // A server may close between two requests; one that closes every time is at fault.
        for _ in 0..3 {
            if !self.is_ready().await {
                self.reopen().await?;
            }
            let (outcome, closed) = self.attempt(request).await;
            if closed {
                self.open = None;
            }
            match outcome {
                Ok(answer) => return answer.context("the connection broke"),
                Err(unsent) => {
                    self.open = None;
                    request = unsent;
                }
            }
        }
        bail!("the server closes every connection before it takes a request")
    }
}

/// What came of a request: an answer, a fault, or the request itself when nothing of it was sent.
type Outcome = Result<anyhow::Result<Answer>, Request<Payload>>;

async fn read(response: Response<Incoming>) -> anyhow::Result<Answer> {
    let (head, mut incoming) = response.into_parts();
    let mut body = BytesMut::new();
    while let Some(frame) = incoming.frame().await {
        if let Ok(data) = frame?.into_data() {
            if body.len() + data.len() > LONGEST {
                bail!("the answer is longer than {LONGEST} bytes");
            }
            body.extend_from_slice(&data);
        }
    }
    Ok(Answer {
        status: head.status,
        headers: head.headers,
        body: body.freeze(),
    })
}
