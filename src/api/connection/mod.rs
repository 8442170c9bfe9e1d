//! Connections: HTTP/1.1 served by hyper, each request handed to Poem.
//!
//! Poem's own server has no bound on how long a client may take over its headers, or over reading its answer; this
//! one has. It also lets a client that is refused in the middle of its body read the answer, and ends within
//! `server.shutdown_timeout`.

pub(super) mod body;
mod stream;
mod timeouts;

use super::middleware::real_ip;
use body::PacedBody;
use futures::StreamExt;
use http::{Request, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use landfall_core::config::{self, IpNet};
use poem::{
    Body, Endpoint, EndpointExt, RequestParts, Response,
    endpoint::BoxEndpoint,
    http::uri::Scheme,
    web::{LocalAddr, RemoteAddr},
};
use std::{convert::Infallible, io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};
use stream::{Held, Socket};
use timeouts::{Beat, Limits, Pulse};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The largest piece a body comes in, in bytes. Hyper refuses a head that fills it, by an answer without a body.
const BUFFER: usize = 256 * 1024;

/// Request line and headers together may have this many bytes, a little less than hyper would take.
pub(super) const LONGEST_HEAD: usize = BUFFER - 1;

/// More headers are answered 431, with a problem.
pub(super) const MOST_HEADERS: usize = 100;

/// More headers hyper does not take, and answers so itself: it makes room for so many at each request.
const MOST_PARSED_HEADERS: usize = 256;

/// How long a client that still sends a head that was refused may take to read the answer, and how many bytes of it
/// are read meanwhile: a connection closed with unread bytes is reset, and the answer may be lost.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 4 * 1024 * 1024;

/// Stands in a request of which nothing is known but that its head is too long.
#[derive(Clone, Copy, Debug)]
pub(super) struct LongHead;

/// How long a connection may rest between requests: longer than load balancers keep theirs (AWS's 60 s), so that it is
/// they who close, and no request meets a connection that is just going away.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// What accept(2) fails with when the process is out of descriptors does not go away at once.
const AFTER_ACCEPT_ERROR: Duration = Duration::from_millis(50);

#[derive(Clone)]
struct Connection {
    endpoint: Arc<BoxEndpoint<'static, Response>>,
    limits: Limits,
    idle_timeout: Duration,
    proxies: Arc<[IpNet]>,
    stop: CancellationToken,
}

/// Accepts until told to stop, then waits for what is under way.
pub(crate) async fn run(
    endpoint: impl Endpoint<Output = Response> + 'static,
    config: &config::Server,
    listener: TcpListener,
    stop: CancellationToken,
) -> io::Result<()> {
    let local = listener.local_addr()?;
    let connection = Connection {
        endpoint: Arc::new(endpoint.boxed()),
        limits: Limits {
            headers: config.header_timeout,
            keep_alive: KEEP_ALIVE.max(config.header_timeout),
            head: LONGEST_HEAD,
        },
        idle_timeout: config.idle_timeout,
        proxies: config.trusted_proxies.clone().into(),
        stop: stop.clone(),
    };
    let cut = CancellationToken::new();
    let open = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, remote)) => {
                // Boxed: it would be held twice, before it is polled and after.
                let serve = Box::pin(connection.clone().serve(socket, local, remote));
                let cut = cut.clone();
                open.spawn(async move { cut.run_until_cancelled(serve).await });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(AFTER_ACCEPT_ERROR).await;
            }
        }
    }
    drop(listener);
    open.close();
    if tokio::time::timeout(config.shutdown_timeout, open.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            connections = open.len(),
            "requests were cut off by the shutdown"
        );
        cut.cancel();
        open.wait().await;
    }
    Ok(())
}

impl Connection {
    async fn serve(self, socket: TcpStream, local: SocketAddr, remote: SocketAddr) {
        // Small answers must not wait for acknowledgements of earlier ones.
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        let pulse = Pulse::new(self.limits);
        let socket = Socket::new(socket, self.idle_timeout, pulse.clone());
        let service = service_fn(|request: Request<Incoming>| {
            let (endpoint, proxies) = (Arc::clone(&self.endpoint), Arc::clone(&self.proxies));
            let (idle, beat, of_body) = (self.idle_timeout, pulse.request(), pulse.request());
            async move {
                let request = to_poem(request, (idle, of_body), (local, remote), &proxies);
                let response = endpoint.get_response(request).await;
                let response = http::Response::from(response);
                Ok::<_, Infallible>(response.map(|body| Held::new(body, beat)))
            }
        });
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // Hyper's does not tell a request that is late from one that has not begun.
            .header_read_timeout(None)
            .max_buf_size(BUFFER)
            .max_headers(MOST_PARSED_HEADERS)
            .serve_connection(TokioIo::new(socket), service);
        let outcome = {
            let mut connection = Pin::new(&mut connection);
            let served = async {
                tokio::select! {
                    outcome = &mut connection => outcome,
                    () = self.stop.cancelled() => {
                        connection.as_mut().graceful_shutdown();
                        connection.await
                    }
                }
            };
            tokio::select! {
                biased;
                outcome = served => Some(outcome),
                () = pulse.overdue() => return,
                () = pulse.filled() => None,
            }
        };
        let ended = match outcome {
            Some(outcome) => outcome.map_err(io::Error::other),
            None => {
                let socket = connection.into_parts().io.into_inner();
                Box::pin(self.refuse_head(socket, local, remote)).await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
    }

    /// Answers a head that is too long, as any other request is refused, and ends the connection.
    async fn refuse_head(
        &self,
        mut socket: Socket,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> io::Result<()> {
        let (parts, ()) = Request::new(()).into_parts();
        let (local, remote) = (LocalAddr(local.into()), RemoteAddr(remote.into()));
        let parts = RequestParts::from((parts, local, remote, Scheme::HTTP));
        let mut request = poem::Request::from_parts(parts, Body::empty());
        request.set_data(LongHead);
        let answer = self.endpoint.get_response(request).await;
        let (head, body) = answer.into_parts();
        let body = body.into_bytes().await.map_err(io::Error::other)?;
        let mut bytes = format!("HTTP/1.1 {}\r\n", head.status).into_bytes();
        for (name, value) in &head.headers {
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
        let mut rest = socket.into_stream().take(LINGER_BYTES);
        let mut nowhere = tokio::io::sink();
        let reading = tokio::io::copy(&mut rest, &mut nowhere);
        // A client that goes on for longer has had its time.
        tokio::time::timeout(LINGER, reading)
            .await
            .map_or(Ok(()), |read| read.map(drop))
    }
}

fn to_poem(
    request: Request<Incoming>,
    (idle, beat): (Duration, Beat),
    (local, remote): (SocketAddr, SocketAddr),
    proxies: &[IpNet],
) -> poem::Request {
    let (parts, body) = request.into_parts();
    let expects = parts.headers.contains_key(header::EXPECT);
    let local = LocalAddr(local.into());
    let client = real_ip::client(&parts.headers, remote.ip(), proxies);
    // From here on a request comes from its client, however many proxies stand in between.
    let remote = RemoteAddr(SocketAddr::new(client.address, remote.port()).into());
    let scheme = if client.secure {
        Scheme::HTTPS
    } else {
        Scheme::HTTP
    };
    let parts = RequestParts::from((parts, local, remote, scheme));
    let body = PacedBody::new(body, idle, expects, beat);
    poem::Request::from_parts(parts, Body::from_bytes_stream(body.boxed()))
}
