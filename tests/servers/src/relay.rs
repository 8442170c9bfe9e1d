//! A TCP relay whose target can be changed, like an address that moves to another server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A relay on a free port of 127.0.0.1, stopped on drop.
#[derive(Debug)]
pub struct Relay {
    port: u16,
    target: Arc<AtomicU16>,
    switched: watch::Sender<()>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Starts it, to a port of 127.0.0.1.
    ///
    /// # Panics
    /// If there is no free port.
    pub async fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let target = Arc::new(AtomicU16::new(target));
        let switched = watch::Sender::new(());
        let (to, cut) = (Arc::clone(&target), switched.subscribe());
        let task = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (to, mut cut) = (to.load(Ordering::SeqCst), cut.clone());
                cut.mark_unchanged();
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(("127.0.0.1", to)).await else {
                        return;
                    };
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self {
            port,
            target,
            switched,
            task,
        }
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Cuts all connections; further ones go to this port.
    pub fn switch(&self, target: u16) {
        self.target.store(target, Ordering::SeqCst);
        self.switched.send_replace(());
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}
