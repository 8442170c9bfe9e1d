//! An API node that is frozen during an upload, past its lease, and continues while its client is using another node,
//! or later: exactly the bytes that the client sent are stored.
//!
//! What the frozen node still receives when it runs on are other bytes, so that each of them would be seen.

use crate::support::{Installation, Process};
use futures::{StreamExt, stream};
use landfall_core::db::Database;
use landfall_test_servers::{S3Server, wait_until};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::{Body, Client, Method, RequestBuilder};
use rustix::process::Signal;
use sea_orm::DbErr;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    time::{Instant, interval, timeout},
};

const OFFSET_STREAM: &str = "application/offset+octet-stream";
const SOON: Duration = Duration::from_secs(60);
/// Longer than a writer whose client pauses takes to count what it has, in a folder and in a bucket.
const PAUSES: [Duration; 2] = [Duration::from_millis(300), Duration::from_millis(1300)];
/// Number of concurrent scenarios.
const AT_ONCE: usize = 8;
const PART: usize = 64 * 1024;

/// What the client uploads, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Append {
        size: usize,
    },
    /// Two of them, joined in the end.
    Partial {
        size: usize,
    },
    Parts,
}

/// Where the first node is frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Freeze {
    /// After this many bytes were sent to it, with or without a pause in between.
    Sent {
        bytes: usize,
        pauses: bool,
    },
    At {
        failpoint: &'static str,
        nth: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wake {
    WhileTheOtherReceives,
    WhenTheOtherHasAll,
    WhenTheFileIsStored,
}

#[derive(Clone, Copy, Debug)]
struct Scenario {
    kind: Kind,
    freeze: Freeze,
    wake: Wake,
    seed: u64,
}

const WAKES: [Wake; 3] = [
    Wake::WhileTheOtherReceives,
    Wake::WhenTheOtherHasAll,
    Wake::WhenTheFileIsStored,
];

impl Scenario {
    fn random(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let kind = match random.random_range(0..4) {
            0 => Kind::Partial {
                size: random.random_range(200_000..2_000_000),
            },
            1 => Kind::Parts,
            _ => Kind::Append {
                size: random.random_range(150_000..12_000_000),
            },
        };
        let size = kind.size();
        let points = match kind {
            Kind::Parts => &["staging.writing", "staging.written", "parts.synced"][..],
            _ => &[
                "uploads.acquired",
                "staging.writing",
                "staging.written",
                "uploads.synced",
                "uploads.counted",
            ],
        };
        let freeze = match random.random_bool(0.5) {
            true => Freeze::Sent {
                bytes: random.random_range(0..size),
                pauses: random.random_bool(0.5),
            },
            false => Freeze::At {
                failpoint: points[random.random_range(0..points.len())],
                nth: 1,
            },
        };
        Self {
            kind,
            freeze,
            wake: WAKES[random.random_range(0..WAKES.len())],
            seed,
        }
    }
}

impl Kind {
    /// Of the one request that is frozen, in bytes.
    fn size(self) -> usize {
        match self {
            Self::Append { size } | Self::Partial { size } => size,
            Self::Parts => PART,
        }
    }
}

fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; size];
    StdRng::seed_from_u64(seed).fill(&mut bytes[..]);
    bytes
}

/// The second node and the workers, which are never frozen.
struct Cluster {
    installation: Installation,
    node: Process,
    _worker: Process,
    client: Client,
    s3: Option<S3Server>,
    db: Database,
}

impl Cluster {
    async fn start(installation: Installation, s3: Option<S3Server>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let db = Database::open(&installation.config().database.url, 2).await;
        let db = db.expect("a database");
        db.migrate_up().await.expect("migrations");
        let environment = installation.environment();
        Self {
            node: Process::listening(&["serve"], &environment).await,
            _worker: Process::spawn(&["worker"], &environment),
            installation,
            client: Client::new(),
            s3,
            db,
        }
    }

    async fn in_a_folder() -> Self {
        let mut installation = Installation::new();
        installation.on_postgres().await;
        Self::start(installation, None).await
    }

    async fn in_a_bucket() -> Self {
        let s3 = S3Server::start().await;
        let mut installation = Installation::new();
        installation.on_postgres().await;
        installation.store_in(&s3);
        installation.set("staging.backend", "s3");
        Self::start(installation, Some(s3)).await
    }

    async fn first_node(&self, freeze: Freeze) -> Process {
        let mut environment = self.installation.environment();
        if let Freeze::At { failpoint, nth } = freeze {
            // A node probes its staging folder at start-up, and passes this point once.
            let tried = failpoint.starts_with("staging.") && self.s3.is_none();
            let value = format!("{failpoint}=stop@{}", nth + u32::from(tried));
            environment.push(("LANDFALL_FAILPOINT".to_owned(), value));
        }
        Process::listening(&["serve"], &environment).await
    }

    /// On SQLite one process writes at a time, and one that is frozen while it writes keeps all others from it. What
    /// the others do then is not the subject here.
    async fn others_can_write(&self) -> bool {
        let writing = self.db.write(|_| Box::pin(async { Ok::<_, DbErr>(()) }));
        matches!(timeout(Duration::from_secs(2), writing).await, Ok(Ok(())))
    }

    fn pause(&self) -> Duration {
        PAUSES[usize::from(self.s3.is_some())]
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self
            .client
            .request(method, format!("{}{path}", self.node.url));
        match path.starts_with("/v1/tus") {
            true => request.header("Tus-Resumable", "1.0.0"),
            false => request,
        }
    }

    async fn begin(&self, headers: &[(&str, String)]) -> String {
        let mut request = self.request(Method::POST, "/v1/tus");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let response = request.send().await.expect("a response");
        assert_eq!(response.status(), 201, "{response:?}");
        response.headers()["location"]
            .to_str()
            .expect("text")
            .to_owned()
    }

    async fn json(&self, method: Method, path: &str, body: Value) -> Value {
        let response = self.request(method, path).json(&body).send().await;
        let response = response.expect("a response");
        assert!(response.status().is_success(), "{path}: {response:?}");
        response.json().await.expect("JSON")
    }

    async fn offset(&self, path: &str) -> usize {
        let response = self.request(Method::HEAD, path).send().await;
        let response = response.expect("a response");
        assert_eq!(response.status(), 200, "{response:?}");
        let offset = response.headers()["upload-offset"].to_str().expect("text");
        offset.parse().expect("a number")
    }

    async fn content(&self, id: &str) -> Vec<u8> {
        wait_until(SOON, async || {
            let path = format!("/v1/files/{id}?wait=10");
            let file = self.request(Method::GET, &path).send().await;
            let file: Value = file.expect("a response").json().await.expect("a File");
            assert_ne!(file["status"], "failed", "{file}");
            (file["status"] == "stored").then_some(())
        })
        .await;
        let path = format!("/v1/files/{id}/content");
        let content = self.request(Method::GET, &path).send().await;
        content
            .expect("a response")
            .bytes()
            .await
            .expect("bytes")
            .to_vec()
    }

    /// Sends what the second node is missing, and runs `midway` halfway.
    async fn send_the_rest(&self, path: &str, bytes: &[u8], midway: impl AsyncFnOnce()) {
        let mut midway = Some(midway);
        let deadline = Instant::now() + 2 * SOON;
        let mut tries = interval(Duration::from_millis(50));
        loop {
            tries.tick().await;
            assert!(Instant::now() < deadline, "{path} takes no bytes");
            let offset = self.offset(path).await;
            if offset == bytes.len() {
                if let Some(midway) = midway.take() {
                    midway().await;
                }
                return;
            }
            let (sender, receiver) = mpsc::unbounded_channel::<Vec<u8>>();
            let body = stream::unfold(receiver, |mut receiver| async move {
                let next: Vec<u8> = receiver.recv().await?;
                Some((Ok::<_, std::convert::Infallible>(next), receiver))
            });
            let request = self
                .request(Method::PATCH, path)
                .header("Upload-Offset", offset)
                .header("Content-Type", OFFSET_STREAM)
                .header("Content-Length", bytes.len() - offset)
                .body(Body::wrap_stream(body));
            let middle = offset + (bytes.len() - offset) / 2;
            sender.send(bytes[offset..middle].to_vec()).expect("sent");
            let answering = tokio::spawn(request.send());
            // Until it has the lease, and counts.
            let before = offset;
            let taken = wait_until(SOON, async || {
                (self.offset(path).await > before || answering.is_finished()).then_some(())
            });
            taken.await;
            if !answering.is_finished()
                && let Some(midway) = midway.take()
            {
                midway().await;
            }
            let _ = sender.send(bytes[middle..].to_vec());
            drop(sender);
            let response = answering.await.expect("a task").expect("a response");
            match response.status().as_u16() {
                204 => assert_eq!(self.offset(path).await, bytes.len()),
                // 503: PostgreSQL has not ended the transaction yet that the first node was frozen in.
                409 | 423 | 503 => {}
                other => panic!("{other}: {response:?}"),
            }
        }
    }
}

/// The request that the first node is frozen in.
struct Frozen {
    node: Process,
    stream: TcpStream,
    left: usize,
}

impl Frozen {
    /// Sends a request to the first node until that is frozen.
    async fn freeze(cluster: &Cluster, scenario: Scenario, head: String, bytes: &[u8]) -> Self {
        let node = cluster.first_node(scenario.freeze).await;
        let address = node
            .url
            .strip_prefix("http://")
            .expect("an address")
            .to_owned();
        let mut stream = TcpStream::connect(&address).await.expect("a connection");
        let head = format!(
            "{head}Host: {address}\r\nContent-Length: {}\r\n\r\n",
            bytes.len()
        );
        stream.write_all(head.as_bytes()).await.expect("a head");
        let (end, pauses) = match scenario.freeze {
            Freeze::Sent { bytes, pauses } => (bytes, pauses),
            // Steps between two counts are only reached with a pause; a small upload arrives at once.
            Freeze::At { .. } => (bytes.len(), bytes.len() > 2 * PART),
        };
        let mut sent = 0;
        for piece in bytes[..end].chunks(end.div_ceil(3).max(1)) {
            if sent > 0 && pauses {
                tokio::time::sleep(cluster.pause()).await;
            }
            let until = sent + piece.len();
            while sent < until && !node.is_stopped() {
                // A node that is frozen takes nothing more.
                let writing = stream.write(&bytes[sent..until]);
                if let Ok(written) = timeout(Duration::from_millis(500), writing).await {
                    sent += written.expect("the node takes bytes");
                }
            }
        }
        let stopped = async || node.is_stopped().then_some(());
        if matches!(scenario.freeze, Freeze::Sent { .. }) {
            node.signal(Signal::STOP);
            wait_until(SOON, stopped).await;
            while !cluster.others_can_write().await {
                node.signal(Signal::CONT);
                let written = async || cluster.others_can_write().await.then_some(());
                wait_until(SOON, written).await;
                node.signal(Signal::STOP);
                wait_until(SOON, stopped).await;
            }
        }
        wait_until(SOON, stopped).await;
        Self {
            node,
            stream,
            left: bytes.len() - sent,
        }
    }

    /// Lets the node continue, sends it other bytes, and waits for its response, which must not be an acceptance.
    async fn wake(mut self, scenario: Scenario) {
        self.node.signal(Signal::CONT);
        let other = vec![0xee; self.left];
        // It may have responded before reading everything.
        let _ = timeout(SOON, self.stream.write_all(&other)).await;
        let mut response = Vec::new();
        let mut buffer = [0; 4096];
        while !response.windows(4).any(|end| end == b"\r\n\r\n") {
            let read = timeout(SOON, self.stream.read(&mut buffer)).await;
            match read.expect("the frozen node ran on and answers in time") {
                Ok(0) | Err(_) => break,
                Ok(read) => response.extend_from_slice(&buffer[..read]),
            }
        }
        let response = String::from_utf8_lossy(&response).into_owned();
        let status = response.get(9..12).unwrap_or("none").to_owned();
        // All was counted before it froze, or nothing of what it still had is.
        let counted = matches!(
            scenario.freeze,
            Freeze::At {
                failpoint: "uploads.counted",
                ..
            }
        ) || scenario.kind == Kind::Parts;
        let expected: &[&str] = match counted {
            // 503: the database ended the transaction that the node froze in.
            true => &["204", "200", "409", "423", "410", "503"],
            false => &["409", "423", "410", "503"],
        };
        assert!(
            expected.contains(&status.as_str()),
            "{scenario:?}: the frozen node answered {response:?}"
        );
        assert!(self.node.is_running(), "{scenario:?}");
    }
}

fn patch_head(path: &str) -> String {
    format!(
        "PATCH {path} HTTP/1.1\r\nTus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\nContent-Type: {OFFSET_STREAM}\r\n"
    )
}

async fn run(cluster: &Cluster, scenario: Scenario) {
    println!("{scenario:?}");
    let bytes = noise(scenario.kind.size(), scenario.seed);
    let (id, expected, frozen) = match scenario.kind {
        Kind::Append { size } => {
            let path = cluster.begin(&[("Upload-Length", size.to_string())]).await;
            let frozen = Frozen::freeze(cluster, scenario, patch_head(&path), &bytes).await;
            let frozen = rest(cluster, scenario, &path, &bytes, frozen).await;
            (last_of(&path), bytes, frozen)
        }
        Kind::Partial { size } => {
            let headers = [
                ("Upload-Length", size.to_string()),
                ("Upload-Concat", "partial".to_owned()),
            ];
            let (first, second) = (cluster.begin(&headers).await, cluster.begin(&headers).await);
            cluster.send_the_rest(&first, &bytes, async || {}).await;
            let frozen = Frozen::freeze(cluster, scenario, patch_head(&second), &bytes).await;
            let frozen = rest(cluster, scenario, &second, &bytes, frozen).await;
            let list = format!("final;{first} {second}");
            let path = cluster.begin(&[("Upload-Concat", list)]).await;
            (last_of(&path), bytes.repeat(2), frozen)
        }
        Kind::Parts => in_parts(cluster, scenario, bytes).await,
    };
    let content = cluster.content(&id).await;
    assert!(content == expected, "{scenario:?}: other bytes are stored");
    if let Some(frozen) = frozen {
        assert_eq!(scenario.wake, Wake::WhenTheFileIsStored);
        frozen.wake(scenario).await;
    }
    let content = cluster.content(&id).await;
    assert!(
        content == expected,
        "{scenario:?}: what was stored has changed"
    );
}

fn last_of(path: &str) -> String {
    path.rsplit('/').next().expect("an id").to_owned()
}

async fn rest(
    cluster: &Cluster,
    scenario: Scenario,
    path: &str,
    bytes: &[u8],
    frozen: Frozen,
) -> Option<Frozen> {
    match scenario.wake {
        Wake::WhileTheOtherReceives => {
            let midway = async || frozen.wake(scenario).await;
            cluster.send_the_rest(path, bytes, midway).await;
            None
        }
        Wake::WhenTheOtherHasAll => {
            cluster.send_the_rest(path, bytes, async || {}).await;
            frozen.wake(scenario).await;
            None
        }
        Wake::WhenTheFileIsStored => {
            cluster.send_the_rest(path, bytes, async || {}).await;
            Some(frozen)
        }
    }
}

/// Three parts, of which the second is frozen.
async fn in_parts(
    cluster: &Cluster,
    scenario: Scenario,
    bytes: Vec<u8>,
) -> (String, Vec<u8>, Option<Frozen>) {
    let asked = json!({
        "original_filename": "parts", "total_size_bytes": 3 * PART, "chunk_size_bytes": PART,
    });
    let session = cluster.json(Method::POST, "/v1/uploads", asked).await;
    let session = format!("/v1/uploads/{}", session["id"].as_str().expect("an id"));
    let put = async |number: usize| {
        let path = format!("{session}/parts/{number}");
        wait_until(SOON, async || {
            let put = cluster.request(Method::PUT, &path).body(bytes.clone());
            let status = put.send().await.expect("a response").status();
            (status == 200).then_some(())
        })
        .await;
    };
    put(1).await;
    let head = format!("PUT {session}/parts/2 HTTP/1.1\r\n");
    let mut frozen = Some(Frozen::freeze(cluster, scenario, head, &bytes).await);
    put(2).await;
    if scenario.wake == Wake::WhileTheOtherReceives
        && let Some(frozen) = frozen.take()
    {
        frozen.wake(scenario).await;
    }
    put(3).await;
    let complete = format!("{session}/complete");
    let file = cluster.json(Method::POST, &complete, json!({})).await;
    if scenario.wake == Wake::WhenTheOtherHasAll
        && let Some(frozen) = frozen.take()
    {
        frozen.wake(scenario).await;
    }
    let id = file["id"].as_str().expect("an id").to_owned();
    (id, bytes.repeat(3), frozen)
}

async fn run_all(cluster: &Cluster, scenarios: impl IntoIterator<Item = Scenario>) {
    stream::iter(scenarios)
        .for_each_concurrent(AT_ONCE, |scenario| run(cluster, scenario))
        .await;
}

/// At each step of an upload, large, small and in parts.
fn at_every_step() -> Vec<Scenario> {
    let large = Kind::Append { size: 2_000_000 };
    let small = Kind::Append { size: 60_000 };
    let steps = [
        (large, "uploads.acquired", 1),
        (large, "staging.writing", 1),
        (large, "staging.written", 1),
        (large, "uploads.synced", 1),
        (large, "uploads.counted", 1),
        (small, "staging.writing", 1),
        (small, "staging.written", 1),
        (small, "uploads.synced", 1),
        (small, "uploads.counted", 1),
        (Kind::Parts, "staging.writing", 1),
        (Kind::Parts, "staging.written", 1),
        (Kind::Parts, "parts.synced", 1),
        (Kind::Parts, "parts.counted", 1),
    ];
    let turns = steps.into_iter().zip(WAKES.into_iter().cycle()).zip(1..);
    turns
        .map(|(((kind, failpoint, nth), wake), seed)| Scenario {
            kind,
            freeze: Freeze::At { failpoint, nth },
            wake,
            seed,
        })
        .collect()
}

/// How many seeds the suite runs; `LANDFALL_TEST_SEEDS=50` runs more, and `LANDFALL_TEST_SEED=7` only that.
fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    match number("LANDFALL_TEST_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("LANDFALL_TEST_SEEDS").unwrap_or(8)).collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn node_frozen_in_an_upload_changes_nothing_when_it_continues_on_sqlite() {
    let cluster = Cluster::start(Installation::new(), None).await;
    let scenarios = WAKES.into_iter().zip(1..).map(|(wake, seed)| Scenario {
        kind: Kind::Append { size: 2_000_000 },
        // From outside, so that a node that was writing to the database can continue and be frozen again.
        freeze: Freeze::Sent {
            bytes: 900_000,
            pauses: true,
        },
        wake,
        seed,
    });
    run_all(&cluster, scenarios).await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn node_frozen_at_any_step_changes_nothing_in_a_folder() {
    run_all(&Cluster::in_a_folder().await, at_every_step()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn node_frozen_at_any_step_changes_nothing_in_a_bucket() {
    run_all(&Cluster::in_a_bucket().await, at_every_step()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn node_frozen_at_random_changes_nothing_in_a_folder() {
    let scenarios = seeds().into_iter().map(Scenario::random);
    run_all(&Cluster::in_a_folder().await, scenarios).await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn node_frozen_at_random_changes_nothing_in_a_bucket() {
    let scenarios = seeds()
        .into_iter()
        .map(|seed| Scenario::random(seed + 1000));
    run_all(&Cluster::in_a_bucket().await, scenarios).await;
}
