//! A proxy to Redis that can drop what is sent, like a host that has lost power.

use tokio::{
    io::{AsyncRead, AsyncWrite, copy},
    net::{TcpListener, TcpStream},
    sync::watch,
};

pub(crate) struct Proxy {
    port: u16,
    requests: watch::Sender<()>,
    answers: watch::Sender<()>,
}

impl Proxy {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            requests: watch::Sender::default(),
            answers: watch::Sender::default(),
        };
        let (requests, answers) = (proxy.requests.subscribe(), proxy.answers.subscribe());
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                let (near_read, near_write) = near.into_split();
                let (far_read, far_write) = far.into_split();
                tokio::spawn(carry(near_read, far_write, requests.clone()));
                tokio::spawn(carry(far_read, near_write, answers.clone()));
            }
        });
        proxy
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Open connections stay open, but nothing passes any more.
    pub(crate) fn drop_everything_on_open_connections(&self) {
        self.requests.send_replace(());
        self.answers.send_replace(());
    }

    /// On open connections requests pass, and responses do not.
    pub(crate) fn drop_responses_on_open_connections(&self) {
        self.answers.send_replace(());
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut swallowed: watch::Receiver<()>,
) {
    swallowed.mark_unchanged();
    tokio::select! {
        _ = copy(&mut from, &mut to) => {}
        _ = swallowed.changed() => std::future::pending().await,
    }
}
