//! Processes that share a database, a Redis and a bucket, and no folder: uploads over two API nodes, which are killed
//! while the bytes come in.

use crate::support::{Installation, Process, invariants};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use landfall::app::{Parts, assemble, connect_redis};
use landfall_core::{digest::Sha256Digest, sweep};
use landfall_test_servers::{Receiver, S3Server, wait_until};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::{Body, Client, Method, RequestBuilder, Response};
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

const MIB: usize = 1024 * 1024;
const PART: usize = 4 * MIB;
const CONNECTIONS: usize = 8;
/// A gibibyte takes a debug build a long time; a release build is asked for it.
const SIZE: usize = if cfg!(debug_assertions) {
    128 * MIB
} else {
    1024 * MIB
};
/// What one connection carries in a second, so that there is time to be killed.
const RATE: usize = if cfg!(debug_assertions) {
    3 * MIB / 2
} else {
    12 * MIB
};
const WITHIN: Duration = Duration::from_secs(300);

struct Topology {
    installation: Installation,
    s3: S3Server,
    parts: Parts,
    receiver: Receiver,
    client: Client,
    nodes: [Mutex<Process>; 2],
    urls: [RwLock<String>; 2],
    _workers: [Process; 2],
    turn: AtomicUsize,
    sent: AtomicUsize,
}

/// The installation's settings on a machine of its own.
fn machine(installation: &Installation, name: &str) -> Vec<(String, String)> {
    let mut environment = installation.environment();
    let path = installation.folder().join(name).display().to_string();
    environment.push(("LANDFALL__DATA_DIR".to_owned(), path));
    environment
}

impl Topology {
    async fn start() -> Self {
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
            s3,
            parts,
            receiver,
            client: Client::new(),
            turn: AtomicUsize::new(0),
            sent: AtomicUsize::new(0),
        };
        let hook = json!({ "url": new.receiver.url("/hook") });
        let made = new.request(Method::POST, "/v1/webhooks").await.json(&hook);
        assert_eq!(made.send().await.expect("an answer").status(), 201);
        new
    }

    /// A request to the one node or the other, in turn.
    async fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let node = self.turn.fetch_add(1, Ordering::SeqCst) % 2;
        let url = format!("{}{path}", self.urls[node].read().await);
        let request = self.client.request(method, url);
        match path.starts_with("/v1/tus") {
            true => request.header("Tus-Resumable", "1.0.0"),
            false => request,
        }
    }

    /// Sent until a node that lives answers it.
    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> Response {
        wait_until(WITHIN, async || {
            let mut request = self.request(method.clone(), path).await;
            if let Some(body) = &body {
                request = request.json(body).header("Idempotency-Key", path);
            }
            let answer = request.send().await.map_err(|error| error.to_string())?;
            match answer.status().as_u16() {
                409 | 423 | 500.. => Err(format!("{answer:?}")),
                _ => Ok(answer),
            }
        })
        .await
    }

    async fn json(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let answer = self.ask(method, path, body).await;
        assert!(answer.status().is_success(), "{answer:?}");
        answer.json().await.expect("JSON")
    }

    /// Bytes as a slow connection carries them, counted.
    fn slowly(
        self: &Arc<Self>,
        bytes: Vec<u8>,
    ) -> impl Stream<Item = Result<Vec<u8>, Infallible>> + use<> {
        const PIECE: usize = 64 * 1024;
        let every = Duration::from_secs(1) * u32::try_from(PIECE).expect("small")
            / u32::try_from(RATE).expect("not so large");
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

    /// Kills one of the nodes every two seconds and starts it again, until told to stop; answers how often.
    async fn kill_and_restart(self: Arc<Self>, seed: u64, done: CancellationToken) -> usize {
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

    /// Stored with these bytes, announced once, and nothing left behind after a sweep.
    async fn ends_well(&self, id: &str, bytes: &[u8]) {
        let file = wait_until(WITHIN, async || {
            let file = self
                .json(Method::GET, &format!("/v1/files/{id}"), None)
                .await;
            let status = file["status"].as_str().expect("a status").to_owned();
            match status.as_str() {
                "stored" | "failed" => Ok(file),
                _ => Err(status),
            }
        })
        .await;
        assert_eq!(file["status"], "stored", "{file}");
        assert_eq!(file["sha256"], Sha256Digest::of(bytes).to_string());
        self.receiver.wait_for(1, WITHIN).await;
        let landfall = &self.parts.landfall;
        invariants::come_to_rest(landfall).await;
        invariants::check(landfall, &[id.to_owned()], &self.receiver.requests()).await;
        let staged: Vec<_> = landfall.staging.list().try_collect().await.expect("a list");
        assert!(
            staged.concat().is_empty(),
            "I5: staging is left: {staged:?}"
        );
        // A multipart upload of nobody's is left alone for the grace period.
        let grace = landfall.config.staging.grace;
        landfall.clock.advance(grace + Duration::from_secs(60));
        sweep::sweep(landfall).await.expect("the sweep runs");
        let open = self.s3.open_multipart_uploads();
        assert!(open.is_empty(), "I5: open multipart uploads: {open:?}");
    }
}

fn content(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; SIZE];
    StdRng::seed_from_u64(seed).fill(&mut bytes[..]);
    bytes
}

/// A seed of one's own runs the same again: LANDFALL_TEST_SEED.
fn seed() -> u64 {
    let given = std::env::var("LANDFALL_TEST_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    println!("LANDFALL_TEST_SEED={seed}");
    seed
}

fn is_received(session: &Value, number: usize) -> bool {
    let runs = session["received_parts"].as_str().expect("ranges");
    runs.split(',').filter(|run| !run.is_empty()).any(|run| {
        let (first, last) = run.split_once('-').unwrap_or((run, run));
        (first.parse().expect("a number")..=last.parse().expect("a number")).contains(&number)
    })
}

/// Sends a part until it counts; one that counts although its answer was lost is not sent again.
async fn send_part(topology: &Arc<Topology>, session: &str, number: usize, bytes: Vec<u8>) {
    let path = format!("{session}/parts/{number}");
    loop {
        let request = topology.request(Method::PUT, &path).await;
        let body = Body::wrap_stream(topology.slowly(bytes.clone()));
        let request = request.header("Content-Length", bytes.len()).body(body);
        if let Ok(answer) = request.send().await {
            match answer.status().as_u16() {
                200 => return,
                409 | 503 => {}
                _ => panic!("{number}: {:?}", answer.text().await),
            }
        }
        let known = topology.json(Method::GET, session, None).await;
        if is_received(&known, number) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn upload_in_parts_over_two_nodes_that_are_killed_is_stored_and_hardly_sent_twice() {
    let seed = seed();
    let topology = Arc::new(Topology::start().await);
    let bytes = Arc::new(content(seed));
    let asked = json!({
        "original_filename": "parts.bin", "total_size_bytes": SIZE, "chunk_size_bytes": PART,
    });
    let begun = topology
        .json(Method::POST, "/v1/uploads", Some(asked))
        .await;
    let session = format!("/v1/uploads/{}", begun["id"].as_str().expect("an id"));
    let done = CancellationToken::new();
    let killer = tokio::spawn(Arc::clone(&topology).kill_and_restart(seed, done.clone()));
    stream::iter(1..=SIZE / PART)
        .map(|number| {
            let (topology, bytes) = (Arc::clone(&topology), Arc::clone(&bytes));
            let session = session.clone();
            tokio::spawn(async move {
                let part = bytes[(number - 1) * PART..number * PART].to_vec();
                send_part(&topology, &session, number, part).await;
            })
        })
        .buffer_unordered(CONNECTIONS)
        .for_each(|sent| async { sent.expect("a part is taken in") })
        .await;
    let file = topology
        .json(Method::POST, &format!("{session}/complete"), None)
        .await;
    done.cancel();
    let kills = killer.await.expect("the killer ends without a panic");
    let twice = topology.sent.load(Ordering::SeqCst) - SIZE;
    println!("{kills} kills, {twice} of {SIZE} bytes sent twice");
    assert!(kills > 1, "nobody was killed");
    assert!(
        twice <= kills * CONNECTIONS * PART,
        "{twice} bytes sent twice"
    );
    topology
        .ends_well(file["id"].as_str().expect("an id"), &bytes)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tus_upload_over_two_nodes_that_are_killed_is_stored_and_hardly_sent_twice() {
    let seed = seed();
    let topology = Arc::new(Topology::start().await);
    // One connection carries less than eight.
    let bytes = content(seed)[..SIZE / CONNECTIONS].to_vec();
    let post = topology.request(Method::POST, "/v1/tus").await;
    let post = post.header("Upload-Length", bytes.len()).send().await;
    let post = post.expect("an answer");
    let path = post.headers()["location"]
        .to_str()
        .expect("text")
        .to_owned();
    let done = CancellationToken::new();
    let killer = tokio::spawn(Arc::clone(&topology).kill_and_restart(seed, done.clone()));
    loop {
        let head = topology.ask(Method::HEAD, &path, None).await;
        assert_eq!(head.status(), 200, "{head:?}");
        let offset = head.headers()["upload-offset"].to_str().expect("text");
        let offset: usize = offset.parse().expect("a number");
        if offset == bytes.len() {
            break;
        }
        let piece = bytes[offset..bytes.len().min(offset + PART)].to_vec();
        let patch = topology.request(Method::PATCH, &path).await;
        let patch = patch
            .header("Upload-Offset", offset)
            .header("Content-Type", "application/offset+octet-stream")
            .header("Content-Length", piece.len())
            .body(Body::wrap_stream(topology.slowly(piece)));
        if let Ok(answer) = patch.send().await {
            let status = answer.status().as_u16();
            assert!([204, 409, 423, 503].contains(&status), "{answer:?}");
        }
    }
    done.cancel();
    let kills = killer.await.expect("the killer ends without a panic");
    let twice = topology.sent.load(Ordering::SeqCst) - bytes.len();
    println!("{kills} kills, {twice} of {} bytes sent twice", bytes.len());
    assert!(kills > 1, "nobody was killed");
    assert!(twice <= kills * PART, "{twice} bytes sent twice");
    let id = path.rsplit('/').next().expect("an id");
    topology.ends_well(id, &bytes).await;
}
