//! Clients made to hurt, by the hundred, at every route of a process of its own: its memory stays, others are served, and
//! its log stays short.

use crate::support::{Installation, Process, app::SOON, process::command};
use landfall::server;
use landfall_core::{
    clock::Clock,
    db::Database,
    sessions,
    tokens::{self, TokenScope},
};
use reqwest::{Client, Method};
use secrecy::ExposeSecret;
use std::{
    fmt::{self, Display, Formatter},
    process::Stdio,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};
use uuid::Uuid;

/// What memory may grow by.
const MAX_GROWTH: u64 = 64 * 1024 * 1024;

/// How long each flood lasts, unless `LANDFALL_TEST_FLOOD_SECONDS` says otherwise.
const FLOOD_SECONDS: u64 = 4;

/// How long uploads are timed before the flood.
const UNDISTURBED: Duration = Duration::from_secs(2);

/// Connections to each route by each caller.
const EACH: usize = 2;

#[derive(Clone, Copy, Debug)]
enum Flood {
    EndlessBody,
    SlowBody,
    SlowReader,
    ManyHeaders,
    HugeTarget,
    UnreadAnswer,
}

/// How long the requests of a client took.
#[derive(Clone, Copy, Debug)]
struct Durations {
    count: usize,
    p50: Duration,
    p99: Duration,
    max: Duration,
}

impl Durations {
    fn of(mut durations: Vec<Duration>) -> Self {
        durations.sort_unstable();
        let count = durations.len();
        Self {
            count,
            p50: durations[count / 2],
            p99: durations[count * 99 / 100],
            max: durations[count - 1],
        }
    }
}

impl Display for Durations {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            count,
            p50,
            p99,
            max,
        } = self;
        write!(
            f,
            "p50 {p50:.1?}, p99 {p99:.1?}, longest {max:.1?} of {count}"
        )
    }
}

/// A server process, and who may call it.
struct FloodTarget {
    process: Process,
    lines: Arc<Mutex<Vec<String>>>,
    /// Headers of each kind of caller.
    callers: Vec<String>,
    routes: Vec<(Method, String)>,
    client: Client,
}

impl FloodTarget {
    async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut installation = Installation::new();
        installation.set("auth.mode", "tokens");
        installation.set("uploads.max_file_size", "4MiB");
        installation.set("staging.quota", "256MiB");
        let environment = installation.environment();
        let mut child = command(&["up"], &environment)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let (seen, log) = (Arc::clone(&lines), child.stderr.take().unwrap());
        tokio::spawn(async move {
            let mut log = BufReader::new(log).lines();
            while let Ok(Some(line)) = log.next_line().await {
                seen.lock().unwrap().push(line);
            }
        });
        let process = Process::adopt(child).await;
        let url = installation.config().database.url;
        let db = Database::open(&url, 2).await.unwrap();
        let callers = callers(&db).await;
        let client = Client::new();
        let link = link_secret(&client, &process.url, &callers[1]).await;
        let routes = routes(&client, &process.url, &link).await;
        // The folder is deleted with the process, at the end of the test.
        std::mem::forget(installation);
        let target = Self {
            process,
            lines,
            callers,
            routes,
            client,
        };
        target.fill().await;
        target
    }

    /// Files with much metadata, so that lists are long.
    async fn fill(&self) {
        let metadata = format!("{{\"a\":\"{}\"}}", "x".repeat(12_000));
        for number in 0..100 {
            let request = self
                .client
                .post(format!("{}/v1/files", self.process.url))
                .query(&[
                    ("filename", format!("{number}").as_str()),
                    ("metadata", &metadata),
                ])
                .header("authorization", self.bearer())
                .body("bytes");
            assert_eq!(request.send().await.unwrap().status(), 202);
        }
    }

    fn bearer(&self) -> String {
        let head = &self.callers[1];
        let line = head.lines().next().unwrap();
        line.strip_prefix("authorization: ").unwrap().to_owned()
    }

    /// Bytes of memory that are the process's own.
    fn memory(&self) -> u64 {
        let status = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(status).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:"));
        let kib = line.unwrap().split_whitespace().nth(1).unwrap();
        kib.parse::<u64>().unwrap() * 1024
    }

    /// Uploads a small file as another client would. Returns the time until the 202.
    async fn upload(&self) -> Duration {
        let sent = Instant::now();
        let upload = self
            .client
            .post(format!("{}/v1/files?filename=a", self.process.url))
            .header("authorization", self.bearer())
            .body("bytes");
        let response = tokio::time::timeout(SOON, upload.send()).await;
        assert_eq!(response.expect("an answer in time").unwrap().status(), 202);
        sent.elapsed()
    }

    /// [`Self::upload`], again and again, with nothing else going on.
    async fn upload_undisturbed(&self) -> Durations {
        let until = Instant::now() + UNDISTURBED;
        let mut durations = Vec::new();
        while Instant::now() < until {
            durations.push(self.upload().await);
        }
        Durations::of(durations)
    }

    fn address(&self) -> &str {
        self.process.url.strip_prefix("http://").unwrap()
    }
}

/// No credentials, a token that may upload and read, and a session of it.
async fn callers(db: &Database) -> Vec<String> {
    let clock = Clock::system();
    let scopes = [TokenScope::Upload, TokenScope::Read];
    let (_, token) = tokens::create(db, &clock, "ann", &scopes, None)
        .await
        .unwrap();
    let token = token.expose_secret().to_owned();
    let begun = sessions::begin(db, &clock, &token).await.unwrap();
    let (_, secret) = begun.unwrap();
    let cookie = format!("landfall_session={}", secret.expose_secret());
    vec![
        String::new(),
        format!("authorization: Bearer {token}\r\n"),
        format!("cookie: {cookie}\r\n"),
    ]
}

/// The secret of an upload link with room for many files.
async fn link_secret(client: &Client, url: &str, caller: &str) -> String {
    let bearer = caller.trim_end().strip_prefix("authorization: ").unwrap();
    let request = client
        .post(format!("{url}/v1/upload-links"))
        .header("authorization", bearer)
        .json(&serde_json::json!({"max_files": 100}));
    let link: serde_json::Value = request.send().await.unwrap().json().await.unwrap();
    let (_, secret) = link["url"].as_str().unwrap().rsplit_once('/').unwrap();
    secret.to_owned()
}

/// Every method of every path, with ids of nothing and the secret of a link.
async fn routes(client: &Client, url: &str, link: &str) -> Vec<(Method, String)> {
    let definition = client.get(format!("{url}/openapi.json")).send().await;
    let definition: serde_json::Value = definition.unwrap().json().await.unwrap();
    let id = Uuid::now_v7().to_string();
    let mut all = Vec::new();
    for (path, operations) in definition["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            let path = path.replace("{id}", &id).replace("{number}", "1");
            let path = path.replace("{secret}", link);
            assert!(!path.contains('{'), "{path}");
            all.push((method.to_uppercase().parse().unwrap(), path));
        }
    }
    for (method, path) in server::pages() {
        all.push((method, path.replace(":id", &id)));
    }
    for path in ["/openapi.json", "/docs", "/v1/files?limit=200", "/nothing"] {
        all.push((Method::GET, path.to_owned()));
    }
    all
}

/// One connection that hurts until it is dropped.
async fn hurt(address: String, flood: Flood, method: Method, path: String, caller: String) {
    let socket = TcpSocket::new_v4().unwrap();
    if matches!(flood, Flood::SlowReader | Flood::UnreadAnswer) {
        socket.set_recv_buffer_size(4096).unwrap();
    }
    let Ok(mut stream) = socket.connect(address.parse().unwrap()).await else {
        return;
    };
    let head = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\n{caller}");
    let head = match flood {
        Flood::EndlessBody | Flood::SlowBody => format!(
            "{head}content-type: application/x-www-form-urlencoded\r\ntransfer-encoding: chunked\r\n\r\n"
        ),
        Flood::ManyHeaders => {
            let many: String = (0..10_000).map(|n| format!("x-{n}: {n}\r\n")).collect();
            format!("{head}{many}")
        }
        Flood::HugeTarget => format!(
            "{method} {path}?{} HTTP/1.1\r\nhost: {address}\r\n",
            "a".repeat(250_000)
        ),
        Flood::SlowReader | Flood::UnreadAnswer => format!("{head}\r\n").repeat(20),
    };
    if stream.write_all(head.as_bytes()).await.is_err() {
        return;
    }
    go_on(stream, flood).await;
}

async fn go_on(mut stream: TcpStream, flood: Flood) {
    let piece = format!("{:x}\r\n{}\r\n", 16 * 1024, "a".repeat(16 * 1024));
    let mut byte = [0; 1];
    loop {
        let done = match flood {
            Flood::EndlessBody => stream.write_all(piece.as_bytes()).await.is_err(),
            Flood::SlowBody => {
                tokio::time::sleep(Duration::from_millis(500)).await;
                stream.write_all(b"1\r\na\r\n").await.is_err()
            }
            Flood::SlowReader => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                !matches!(stream.read(&mut byte).await, Ok(1))
            }
            // Everything has been sent; now it waits.
            Flood::ManyHeaders | Flood::HugeTarget | Flood::UnreadAnswer => {
                std::future::pending().await
            }
        };
        if done {
            return;
        }
    }
}

fn flood_duration() -> Duration {
    let given = std::env::var("LANDFALL_TEST_FLOOD_SECONDS").ok();
    Duration::from_secs(given.map_or(FLOOD_SECONDS, |seconds| seconds.parse().unwrap()))
}

async fn survives(flood: Flood) {
    let target = FloodTarget::start().await;
    let alone = target.upload_undisturbed().await;
    let (idle, lines) = (target.memory(), target.lines.lock().unwrap().len());
    let mut clients = JoinSet::new();
    for (method, path) in &target.routes {
        for caller in &target.callers {
            for _ in 0..EACH {
                let address = target.address().to_owned();
                let (method, path, caller) = (method.clone(), path.clone(), caller.clone());
                clients.spawn(hurt(address, flood, method, path, caller));
            }
        }
    }
    let connections = clients.len();
    assert!(connections > 400, "{connections}");
    let until = Instant::now() + flood_duration();
    let (mut most, mut durations) = (0, Vec::new());
    while Instant::now() < until {
        durations.push(target.upload().await);
        most = most.max(target.memory());
    }
    let beside = Durations::of(durations);
    let growth = most.saturating_sub(idle);
    let log = target.lines.lock().unwrap().split_off(lines);
    let logged = log.len();
    eprintln!(
        "{flood:?}: {connections} connections, memory {} + {} KiB, uploads alone: {alone}; beside: {beside}; {logged} log lines",
        idle / 1024,
        growth / 1024,
    );
    assert!(growth <= MAX_GROWTH, "{flood:?}: {growth} bytes more");
    assert!(logged < 50, "{flood:?}: {:#?}", &log[..50]);
    clients.shutdown().await;
    target.upload_undisturbed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_bodies_at_every_route() {
    survives(Flood::EndlessBody).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_bodies_at_every_route() {
    survives(Flood::SlowBody).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_readers_at_every_route() {
    survives(Flood::SlowReader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_headers_at_every_route() {
    survives(Flood::ManyHeaders).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn huge_targets_at_every_route() {
    survives(Flood::HugeTarget).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_answers_at_every_route() {
    survives(Flood::UnreadAnswer).await;
}
