//! A way to Redis that can swallow what is sent, as a machine does that has lost its power.

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

pub(crate) struct Road {
    port: u16,
    swallowed: watch::Sender<u64>,
}

impl Road {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let road = Self {
            port: listener.local_addr().unwrap().port(),
            swallowed: watch::Sender::new(0),
        };
        let swallowed = road.swallowed.subscribe();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(carry(near, port, swallowed.clone()));
            }
        });
        road
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Connections that are open stay open, and nothing passes them any more.
    pub(crate) fn swallow_what_is_open(&self) {
        self.swallowed.send_modify(|times| *times += 1);
    }
}

async fn carry(mut near: TcpStream, port: u16, mut swallowed: watch::Receiver<u64>) {
    swallowed.mark_unchanged();
    let mut far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    tokio::select! {
        _ = copy_bidirectional(&mut near, &mut far) => {}
        _ = swallowed.changed() => std::future::pending().await,
    }
}
