//! Connections: HTTP/1.1, or HTTP/2 with prior knowledge (RFC 9113, section 3.3), served by hyper. Each request is
//! passed to Poem in the form of HTTP/1.1.
//!
//! Poem's own server has no timeout for request headers or for reading the response; this one has. It also lets a
//! client that is rejected in the middle of its body read the response, and stops without cutting off a request that is
//! on its way, within `server.shutdown_timeout`.

mod admission;
pub(super) mod body;
mod stream;
mod timeouts;

use super::{middleware::real_ip, shutdown::Shutdown};
use admission::{Admission, ConnectionPermit};
use body::{DrainRateLimit, IdleTimeoutBody};
use futures::{FutureExt, StreamExt};
use http::{HeaderValue, Request, Uri, Version, header};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::{http1, http2},
    service::{Service, service_fn},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use landfall_core::config::{self, IpNet};
use poem::{
    Body, Endpoint, EndpointExt, RequestParts, Response,
    endpoint::BoxEndpoint,
    http::uri::Scheme,
    web::{LocalAddr, RemoteAddr},
};
use std::{convert::Infallible, io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};
use stream::{Socket, TrackedBody, WriteBackpressure};
use timeouts::{ConnectionTimeouts, LargeHeads, TimeoutLimits, WideReads};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Maximum size of a body chunk, in bytes. Hyper rejects a head that fills this buffer, with a response without a body.
const BUFFER: usize = 256 * 1024;

/// Maximum size of the request line and headers, in bytes; slightly less than hyper's own limit.
pub(super) const MAX_HEAD_LEN: usize = BUFFER - 1;

/// Maximum number of headers; more are rejected with 431 and a problem document.
pub(super) const MAX_HEADERS: usize = 100;

/// Maximum number of headers hyper parses; it rejects more by itself. Hyper allocates space for this many per request.
const MAX_PARSED_HEADERS: usize = 256;

/// How long a client that is still sending a rejected head may take to read the response, and how many of its bytes are
/// read meanwhile. A connection closed with unread bytes is reset, and the response may be lost.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_LINGER_BYTES: u64 = 4 * 1024 * 1024;

/// Maximum number of concurrent request heads longer than [`SMALL_HEAD`], across all connections. Their memory is held
/// until they are answered.
const SMALL_HEAD: usize = 16 * 1024;
const MAX_LARGE_HEADS: usize = 64;

/// Number of connections that may read bodies in chunks of [`BUFFER`] at the same time; the others read chunks of
/// [`NARROW_READ`] bytes. Each chunk is held until its bytes are staged.
const MAX_WIDE_READS: usize = 24;
const NARROW_READ: usize = 8 * 1024;

/// Marks a request whose head was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnreadHead {
    TooLong,
    /// Too many other requests have large heads.
    NoRoom,
}

/// The preface of an HTTP/2 connection (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Interval for checking whether the rest of a preface has arrived.
const PREFACE_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Maximum number of concurrent requests on one HTTP/2 connection; more wait.
const MAX_CONCURRENT_STREAMS: u32 = 200;

/// Maximum size of the headers of each, in bytes, as RFC 9113 counts them (section 6.5.2).
const MAX_HEADER_LIST_LEN: u32 = 64 * 1024;

/// Maximum bytes of each response that are buffered for its client.
const STREAM_BUFFER: usize = 64 * 1024;

/// How often an idle client is pinged, and how long it may take to answer.
const PING_INTERVAL: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Running out of file descriptors does not resolve at once, so accepting pauses.
const ACCEPT_ERROR_BACKOFF: Duration = Duration::from_millis(50);

#[derive(Clone)]
struct Connection {
    endpoint: Arc<BoxEndpoint<'static, Response>>,
    limits: TimeoutLimits,
    large_heads: LargeHeads,
    wide_reads: WideReads,
    idle_timeout: Duration,
    drain_rate: DrainRateLimit,
    proxies: Arc<[IpNet]>,
    shutdown: Shutdown,
}

/// Accepts connections until the listener must be closed, then waits for the requests in progress.
pub(crate) async fn run(
    endpoint: impl Endpoint<Output = Response> + 'static,
    config: &config::ServerConfig,
    listener: TcpListener,
    shutdown: Shutdown,
) -> io::Result<()> {
    let local = listener.local_addr()?;
    let connection = Connection {
        endpoint: Arc::new(endpoint.boxed()),
        limits: TimeoutLimits {
            header_timeout: config.header_timeout,
            keep_alive: config.keep_alive,
            write_timeout: config.idle_timeout,
            narrow_read: NARROW_READ,
            max_small_head: SMALL_HEAD,
            max_head: MAX_HEAD_LEN,
        },
        large_heads: LargeHeads::new(MAX_LARGE_HEADS),
        wide_reads: WideReads::new(MAX_WIDE_READS),
        idle_timeout: config.idle_timeout,
        drain_rate: DrainRateLimit::default(),
        proxies: config.trusted_proxies.clone().into(),
        shutdown: shutdown.clone(),
    };
    let admission = Admission::new(config);
    let cut = CancellationToken::new();
    let open = TaskTracker::new();
    let accept = |socket: TcpStream, remote: SocketAddr| match admission.admit(remote) {
        Ok(admitted) => {
            // Boxed, because otherwise the future would be stored twice: before it is polled and after.
            let serve = connection.clone().serve(socket, local, remote, admitted);
            let serve = Box::pin(serve);
            let cut = cut.clone();
            open.spawn(async move { cut.run_until_cancelled(serve).await });
        }
        Err(refused) => admission.refuse(socket, refused),
    };
    loop {
        let accepted = tokio::select! {
            () = shutdown.stop().cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, remote)) => accept(socket, remote),
            Err(error) => {
                admission.not_accepted(&error);
                tokio::time::sleep(ACCEPT_ERROR_BACKOFF).await;
            }
        }
    }
    // The system has accepted these, so their clients may have sent a request.
    while let Some(Ok((socket, remote))) = listener.accept().now_or_never() {
        accept(socket, remote);
    }
    drop(listener);
    open.close();
    if tokio::time::timeout(config.shutdown_timeout, open.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            connections = open.len(),
            "requests were aborted by the shutdown"
        );
        cut.cancel();
        open.wait().await;
    }
    Ok(())
}

impl Connection {
    async fn serve(
        self,
        socket: TcpStream,
        local: SocketAddr,
        remote: SocketAddr,
        _admitted: ConnectionPermit,
    ) {
        // Small responses must not wait for acknowledgements of earlier ones.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        let (heads, reads) = (self.large_heads.clone(), self.wide_reads.clone());
        let timeouts = ConnectionTimeouts::new(self.limits, heads, reads);
        let is_shared = tokio::select! {
            () = self.shutdown.closing().cancelled() => return,
            is_shared = tokio::time::timeout(self.limits.header_timeout, is_http2(&socket)) => {
                is_shared.unwrap_or(false)
            }
        };
        let backpressure = WriteBackpressure::default();
        let socket = Socket::new(
            socket,
            self.idle_timeout,
            timeouts.clone(),
            backpressure.clone(),
        );
        let ended = match is_shared {
            true => Box::pin(self.serve_http2(socket, timeouts, local, remote)).await,
            false => {
                Box::pin(self.serve_http1(socket, timeouts, backpressure, local, remote)).await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended with an error");
        }
    }

    /// `backpressure` limits how much of a response is produced ahead of the socket, on connections with one response
    /// at a time.
    fn service(
        &self,
        timeouts: &ConnectionTimeouts,
        backpressure: Option<WriteBackpressure>,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> impl Service<
        Request<Incoming>,
        Response = http::Response<TrackedBody>,
        Error = Infallible,
        Future: Send + 'static,
    > + use<> {
        let (endpoint, proxies) = (Arc::clone(&self.endpoint), Arc::clone(&self.proxies));
        let (idle, timeouts) = (self.idle_timeout, timeouts.clone());
        let (shutdown, drain_rate) = (self.shutdown.clone(), self.drain_rate.clone());
        service_fn(move |request: Request<Incoming>| {
            let (endpoint, proxies) = (Arc::clone(&endpoint), Arc::clone(&proxies));
            let (active_request, of_body) = (timeouts.request(), timeouts.body());
            let (shutdown, drain_rate) = (shutdown.clone(), drain_rate.clone());
            let backpressure = backpressure.clone();
            async move {
                let (request, body) = request.into_parts();
                let version = request.version;
                let expects = request.headers.contains_key(header::EXPECT);
                let is_bare = body.is_end_stream();
                let body = IdleTimeoutBody::new(body, idle, expects, of_body, drain_rate);
                let request = to_poem(request, body, is_bare, (local, remote), &proxies);
                let response = endpoint.get_response(request).await;
                let mut response = http::Response::from(response);
                if version != Version::HTTP_2 && shutdown.is_draining() {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                Ok::<_, Infallible>(
                    response.map(|body| TrackedBody::new(body, backpressure, active_request)),
                )
            }
        })
    }

    async fn serve_http2(
        &self,
        socket: Socket,
        timeouts: ConnectionTimeouts,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> io::Result<()> {
        timeouts.share();
        let goaway = self.shutdown.goaway();
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
            .max_header_list_size(MAX_HEADER_LIST_LEN)
            .max_send_buf_size(STREAM_BUFFER)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .serve_connection(
                TokioIo::new(socket),
                self.service(&timeouts, None, local, remote),
            );
        let mut connection = std::pin::pin!(connection);
        let served = async {
            tokio::select! {
                outcome = &mut connection => outcome,
                () = goaway.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            }
        };
        tokio::select! {
            biased;
            outcome = served => outcome.map_err(io::Error::other),
            () = timeouts.timed_out() => Ok(()),
        }
    }

    async fn serve_http1(
        &self,
        socket: Socket,
        timeouts: ConnectionTimeouts,
        backpressure: WriteBackpressure,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> io::Result<()> {
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // Hyper's own timeout does not distinguish a late request from one that has not begun.
            .header_read_timeout(None)
            .max_buf_size(BUFFER)
            .max_headers(MAX_PARSED_HEADERS)
            .serve_connection(
                TokioIo::new(socket),
                self.service(&timeouts, Some(backpressure), local, remote),
            );
        let mut head = UnreadHead::TooLong;
        let outcome = {
            let mut connection = Pin::new(&mut connection);
            let served = async {
                tokio::select! {
                    outcome = &mut connection => outcome,
                    () = self.shutdown.closing().cancelled() => {
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                }
            };
            tokio::select! {
                biased;
                outcome = served => Some(outcome),
                () = timeouts.timed_out() => return Ok(()),
                unread = timeouts.head_rejected() => {
                    head = unread;
                    None
                }
            }
        };
        match outcome {
            Some(outcome) => outcome.map_err(io::Error::other),
            None => {
                let socket = connection.into_parts().io.into_inner();
                Box::pin(self.refuse_head(socket, local, remote, head)).await
            }
        }
    }

    /// Rejects a request whose head was not read, and closes the connection.
    async fn refuse_head(
        &self,
        mut socket: Socket,
        local: SocketAddr,
        remote: SocketAddr,
        head: UnreadHead,
    ) -> io::Result<()> {
        let (parts, ()) = Request::new(()).into_parts();
        let (local, remote) = (LocalAddr(local.into()), RemoteAddr(remote.into()));
        let parts = RequestParts::from((parts, local, remote, Scheme::HTTP));
        let mut request = poem::Request::from_parts(parts, Body::empty());
        request.set_data(head);
        let response = self.endpoint.get_response(request).await;
        let (parts, body) = response.into_parts();
        let body = body.into_bytes().await.map_err(io::Error::other)?;
        let mut bytes = format!("HTTP/1.1 {}\r\n", parts.status).into_bytes();
        for (name, value) in &parts.headers {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        let end = format!(
            "content-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        bytes.extend_from_slice(end.as_bytes());
        bytes.extend_from_slice(&body);
        socket.write_all(&bytes).await?;
        socket.shutdown().await?;
        let mut rest = socket.into_stream().take(MAX_LINGER_BYTES);
        let mut nowhere = tokio::io::sink();
        let reading = tokio::io::copy(&mut rest, &mut nowhere);
        // A client that sends for longer is cut off.
        tokio::time::timeout(LINGER_TIMEOUT, reading)
            .await
            .map_or(Ok(()), |read| read.map(drop))
    }
}

fn to_poem(
    mut parts: http::request::Parts,
    body: IdleTimeoutBody,
    is_bare: bool,
    (local, remote): (SocketAddr, SocketAddr),
    proxies: &[IpNet],
) -> poem::Request {
    if parts.version == Version::HTTP_2 {
        as_http1(&mut parts, is_bare);
    }
    let local = LocalAddr(local.into());
    let client = real_ip::client(&parts.headers, remote.ip(), proxies);
    // From here on the remote address of a request is that of its client, however many proxies are in between.
    let remote = RemoteAddr(SocketAddr::new(client.address, remote.port()).into());
    let scheme = if client.secure {
        Scheme::HTTPS
    } else {
        Scheme::HTTP
    };
    let parts = RequestParts::from((parts, local, remote, scheme));
    let mut request = poem::Request::from_parts(parts, Body::from_bytes_stream(body.boxed()));
    if let Some(host) = client.host {
        request.set_data(host);
    }
    request
}

/// Converts a request to the form of HTTP/1.1 (RFC 9113, section 8.3.1), the only form handlers know.
fn as_http1(parts: &mut http::request::Parts, is_bare: bool) {
    let authority = parts
        .uri
        .authority()
        .map(|authority| HeaderValue::from_str(authority.as_str()));
    if let (false, Some(Ok(host))) = (parts.headers.contains_key(header::HOST), authority) {
        parts.headers.insert(header::HOST, host);
    }
    if let Some(target) = parts.uri.path_and_query() {
        parts.uri = Uri::from(target.clone());
    }
    if !is_bare && !parts.headers.contains_key(header::CONTENT_LENGTH) {
        let chunked = HeaderValue::from_static("chunked");
        parts.headers.insert(header::TRANSFER_ENCODING, chunked);
    }
}

/// Whether a client starts with the HTTP/2 preface. Only peeks at the socket.
async fn is_http2(socket: &TcpStream) -> bool {
    let mut seen = [0; PREFACE.len()];
    loop {
        match socket.peek(&mut seen).await {
            Ok(received) if received > 0 && seen[..received] == PREFACE[..received] => {
                if received == PREFACE.len() {
                    return true;
                }
                tokio::time::sleep(PREFACE_POLL_INTERVAL).await;
            }
            _ => return false,
        }
    }
}
