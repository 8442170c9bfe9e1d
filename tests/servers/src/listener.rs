//! An HTTP/1.1 server on loopback with its own threads, so that it neither blocks with a test nor ends before it; used
//! by [`crate::S3Server`] and [`crate::Receiver`].

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::runtime::{Builder, Runtime};

use crate::background::in_background;
use crate::lock::lock;
use crate::port::free_port;

const STOP: Duration = Duration::from_secs(10);

pub(crate) type Body = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;
type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Reset>> + Send>>;
type Handler = Arc<dyn Fn(Request<Incoming>) -> Answer + Send + Sync>;

/// Resets the connection (RST) instead of responding.
#[derive(Debug)]
pub(crate) struct Reset;

impl fmt::Display for Reset {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the connection is reset on purpose")
    }
}

impl Error for Reset {}

pub(crate) struct Listener {
    address: SocketAddr,
    handler: Handler,
    runtime: Mutex<Option<Runtime>>,
}

impl fmt::Debug for Listener {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("Listener")
            .field(&self.address)
            .finish()
    }
}

impl Listener {
    /// Listens on `port` of 127.0.0.1; 0 takes a free one, and keeps it over a restart.
    pub(crate) fn start<H, F>(port: u16, handler: H) -> Self
    where
        H: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Response<Body>, Reset>> + Send + 'static,
    {
        let port = if port == 0 { free_port() } else { port };
        let handler: Handler = Arc::new(move |request| Box::pin(handler(request)));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let runtime = Mutex::new(Some(run(address, Arc::clone(&handler))));
        Self {
            address,
            handler,
            runtime,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the port and every connection, even during a response.
    pub(crate) async fn stop(&self) {
        let runtime = lock(&self.runtime).take();
        if let Some(runtime) = runtime {
            in_background(move || runtime.shutdown_timeout(STOP)).await;
        }
    }

    /// Listens again on the same port.
    pub(crate) fn start_again(&self) {
        let mut runtime = lock(&self.runtime);
        assert!(runtime.is_none(), "the server runs already: stop it first");
        *runtime = Some(run(self.address, Arc::clone(&self.handler)));
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let runtime = self
            .runtime
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(runtime) = runtime {
            // A test drops its servers inside a runtime, where waiting for another is not allowed.
            runtime.shutdown_background();
        }
    }
}

fn run(address: SocketAddr, handler: Handler) -> Runtime {
    let listener = TcpListener::bind(address)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .unwrap_or_else(|error| panic!("cannot listen on {address}: {error}"));
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("cannot start threads for a test server");
    runtime.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener)
            .expect("a listener that does not block can be polled");
        loop {
            // For example out of file descriptors; the next one may be accepted.
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            tokio::spawn(serve(stream, Arc::clone(&handler)));
        }
    });
    runtime
}

async fn serve(stream: tokio::net::TcpStream, handler: Handler) {
    // A second name for the connection, to set it to "reset on close" while hyper owns it. Not
    // being able to set options of a connection that is gone already harms nothing.
    let _ = stream.set_nodelay(true);
    let Ok(connection) = stream.as_fd().try_clone_to_owned().map(Arc::<OwnedFd>::new) else {
        return;
    };
    let service = service_fn(move |request| {
        let (answer, connection) = (handler(request), Arc::clone(&connection));
        async move {
            let answer = answer.await;
            if answer.is_err() {
                let _ = rustix::net::sockopt::set_socket_linger(&*connection, Some(Duration::ZERO));
            }
            answer
        }
    });
    // An error is a client that disconnected, or an injected fault.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
