//! An HTTP proxy that supports CONNECT and nothing else, and records what it was asked for.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::lock::lock;

/// One request to the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectRequest {
    /// As in `127.0.0.1:8080`.
    pub target: String,
    /// The value of `Proxy-Authorization`.
    pub authorization: Option<String>,
}

/// A proxy on a free port of 127.0.0.1, stopped on drop.
#[derive(Debug)]
pub struct ConnectProxy {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<ConnectRequest>>>,
    task: JoinHandle<()>,
}

impl ConnectProxy {
    /// Starts it. With `authorization`, requests without this value of `Proxy-Authorization` are answered 407.
    ///
    /// # Panics
    /// If there is no free port.
    pub async fn start(authorization: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let requests = Arc::<Mutex<Vec<ConnectRequest>>>::default();
        let (recorded, required) = (Arc::clone(&requests), authorization.map(str::to_owned));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (recorded, required) = (Arc::clone(&recorded), required.clone());
                // A tunnel that breaks is the matter of its two ends.
                tokio::spawn(async move { tunnel(client, &recorded, required.as_deref()).await });
            }
        });
        Self {
            address,
            requests,
            task,
        }
    }

    /// `127.0.0.1:PORT`
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<ConnectRequest> {
        lock(&self.requests).clone()
    }
}

impl Drop for ConnectProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn tunnel(
    mut client: TcpStream,
    recorded: &Mutex<Vec<ConnectRequest>>,
    required: Option<&str>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.lines();
    let target = lines
        .next()
        .and_then(|line| line.strip_prefix("CONNECT "))
        .and_then(|rest| rest.strip_suffix(" HTTP/1.1"));
    let Some(target) = target else {
        return client.write_all(b"HTTP/1.1 405 Only CONNECT\r\n\r\n").await;
    };
    let authorization = lines.find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("proxy-authorization")
            .then(|| value.to_owned())
    });
    let is_allowed = required.is_none_or(|required| authorization.as_deref() == Some(required));
    lock(recorded).push(ConnectRequest {
        target: target.to_owned(),
        authorization,
    });
    if !is_allowed {
        return client
            .write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            .await;
    }
    let mut server = TcpStream::connect(target).await?;
    client
        .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        .await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}
