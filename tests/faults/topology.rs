//! Processes that share a database, a Redis and a bucket, and no folder.

use crate::support::{ClientLog, Installation, Invariants, Process};
use futures::{Stream, stream};
use landfall::server::{ProcessParts, assemble, connect_redis};
use landfall_test_servers::{Receiver, S3Server, wait_until};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;

const WITHIN: Duration = Duration::from_secs(300);

/// Two API nodes and two workers.
pub struct Topology {
    installation: Installation,
    _s3: S3Server,
    pub parts: ProcessParts,
    pub receiver: Receiver,
    pub log: ClientLog,
    client: Client,
    nodes: [Mutex<Process>; 2],
    urls: [RwLock<String>; 2],
    _workers: [Process; 2],
    turn: AtomicUsize,
    /// Bytes that clients have sent by [`Topology::slowly`].
    pub sent: AtomicUsize,
}

/// The installation's settings on a machine of its own.
fn machine(installation: &Installation, name: &str) -> Vec<(String, String)> {
    let mut environment = installation.environment();
    let path = installation.folder().join(name).display().to_string();
    environment.push(("LANDFALL__DATA_DIR".to_owned(), path));
    environment
}

impl Topology {
    pub async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let s3 = S3Server::start().await;
        let mut installation = Installation::new();
        installation.on_postgres().await;
        installation.store_in(&s3);
        installation.set("staging.backend", "s3");
        installation.set("sweep.interval", "2s");
        let config = Arc::new(installation.config());
        let serve =
            async |name: &str| Process::listening(&["serve"], &machine(&installation, name)).await;
        let (first, second) = (serve("first").await, serve("second").await);
        let worker = |name: &str| Process::spawn(&["worker"], &machine(&installation, name));
        let workers = [worker("third"), worker("fourth")];
        let redis = connect_redis(&config, None).expect("a Redis URL");
        let public = first.url.parse().expect("a URL");
        let parts = assemble(config, redis, public).await.expect("all parts");
        let receiver = Receiver::start().await;
        let new = Self {
            urls: [first.url.clone(), second.url.clone()].map(RwLock::new),
            nodes: [first, second].map(Mutex::new),
            _workers: workers,
            installation,
            _s3: s3,
            parts,
            receiver,
            log: ClientLog::default(),
            client: Client::new(),
            turn: AtomicUsize::new(0),
            sent: AtomicUsize::new(0),
        };
        let hook = json!({ "url": new.receiver.url("/hook") });
        let made = new.request(Method::POST, "/v1/webhooks").await.json(&hook);
        assert_eq!(made.send().await.expect("a response").status(), 201);
        new
    }

    /// A request to the one node or the other, in turn.
    pub async fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let node = self.turn.fetch_add(1, Ordering::SeqCst) % 2;
        let url = format!("{}{path}", self.urls[node].read().await);
        let request = self.client.request(method, url);
        match path.starts_with("/v1/tus") {
            true => request.header("Tus-Resumable", "1.0.0"),
            false => request,
        }
    }

    /// Sends the next request to the same node as the previous one.
    pub fn skip_turn(&self) {
        self.turn.fetch_add(1, Ordering::SeqCst);
    }

    /// Sends the request until a live node responds.
    pub async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Response {
        wait_until(WITHIN, async || {
            let mut request = self.request(method.clone(), path).await;
            if let Some(body) = &body {
                request = request.json(body).header("Idempotency-Key", path);
            }
            let response = request.send().await.map_err(|error| error.to_string())?;
            match response.status().as_u16() {
                409 | 423 | 500.. => Err(format!("{response:?}")),
                _ => Ok(response),
            }
        })
        .await
    }

    pub async fn json(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let response = self.ask(method, path, body).await;
        assert!(response.status().is_success(), "{response:?}");
        response.json().await.expect("JSON")
    }

    /// Bytes as a connection carries them that takes `rate` of them in a second, counted.
    pub fn slowly(
        self: &Arc<Self>,
        bytes: Vec<u8>,
        rate: usize,
    ) -> impl Stream<Item = Result<Vec<u8>, Infallible>> + use<> {
        const PIECE: usize = 64 * 1024;
        let every = Duration::from_secs(1) * u32::try_from(PIECE).expect("small")
            / u32::try_from(rate).expect("not so large");
        let (this, ticks) = (Arc::clone(self), tokio::time::interval(every));
        stream::unfold((bytes, 0, ticks), move |(bytes, at, mut ticks)| {
            let this = Arc::clone(&this);
            async move {
                let piece = bytes[at..].iter().take(PIECE).copied().collect::<Vec<_>>();
                if piece.is_empty() {
                    return None;
                }
                ticks.tick().await;
                this.sent.fetch_add(piece.len(), Ordering::SeqCst);
                let next = at + piece.len();
                Some((Ok(piece), (bytes, next, ticks)))
            }
        })
    }

    /// Kills and restarts a node every two seconds until told to stop; returns how often.
    pub async fn kill_and_restart(self: Arc<Self>, seed: u64, done: CancellationToken) -> usize {
        let mut random = StdRng::seed_from_u64(seed);
        let mut kills = 0;
        loop {
            let pause = Duration::from_secs(2);
            if tokio::time::timeout(pause, done.cancelled()).await.is_ok() {
                return kills;
            }
            let victim = random.random_range(0..2);
            let mut process = self.nodes[victim].lock().await;
            process.kill().await;
            kills += 1;
            let name = ["first", "second"][victim];
            *process = Process::listening(&["serve"], &machine(&self.installation, name)).await;
            *self.urls[victim].write().await = process.url.clone();
        }
    }

    /// The invariants of what was added to the log.
    pub fn invariants(&self) -> Invariants<'_> {
        let landfall = &self.parts.app;
        let bytes_on_disk = self.installation.bytes_on_disk(landfall);
        Invariants::new(landfall, bytes_on_disk, &self.log, &self.receiver)
    }

    /// Stored with these bytes, and announced once.
    pub async fn ends_well(&self, id: &str, bytes: &[u8]) {
        self.log.acknowledged(id, bytes);
        self.receiver.wait_for(1, WITHIN).await;
        self.invariants().hold().await;
    }
}
