//! The documented nginx, HAProxy and Caddy in front: servers are replaced without a failed request, and everything works
//! through each of them.

use crate::support::{Installation, Process, app::SOON, process::command};
use futures::StreamExt;
use landfall_test_servers::{ReverseProxy, ReverseProxyProgram, port::free_port, wait_until};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::{Certificate, Client, Method, RequestBuilder, Response, redirect::Policy};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// Requests that each proxy sends concurrently.
const CLIENTS: usize = 3;
const RESTARTS: usize = 10;
const MIB: usize = 1024 * 1024;

fn documented(program: ReverseProxyProgram) -> &'static str {
    match program {
        ReverseProxyProgram::Nginx => include_str!("../../deploy/proxies/nginx.conf"),
        ReverseProxyProgram::Haproxy => include_str!("../../deploy/proxies/haproxy.cfg"),
        ReverseProxyProgram::Caddy => include_str!("../../deploy/proxies/Caddyfile"),
    }
}

fn client(proxy: &ReverseProxy) -> Client {
    let authority = std::fs::read(proxy.authority()).expect("a certificate");
    let authority = Certificate::from_pem(&authority).expect("a certificate");
    Client::builder()
        .tls_certs_only([authority])
        .redirect(Policy::none())
        .build()
        .expect("a client")
}

/// Uploads through one proxy without a pause.
struct Load {
    program: ReverseProxyProgram,
    proxy: ReverseProxy,
    client: Client,
    accepted: AtomicUsize,
    failures: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

impl Load {
    async fn start(program: ReverseProxyProgram, upstreams: [u16; 2]) -> Self {
        let proxy = ReverseProxy::start(program, documented(program), free_port(), upstreams).await;
        Self {
            program,
            client: client(&proxy),
            proxy,
            accepted: AtomicUsize::default(),
            failures: Mutex::default(),
            is_over: AtomicBool::default(),
        }
    }

    async fn run(&self) {
        let clients = (0..CLIENTS).map(|_| async {
            while !self.is_over.load(Ordering::SeqCst) {
                let url = format!("{}/v1/files?filename=a.bin", self.proxy.url());
                let sent = self.client.post(url).body(vec![7; 1000]).send().await;
                let failure = match sent {
                    Ok(response) if response.status() == 202 => {
                        self.accepted.fetch_add(1, Ordering::SeqCst);
                        continue;
                    }
                    Ok(response) => {
                        let status = response.status();
                        format!("{status} {}", response.text().await.unwrap_or_default())
                    }
                    Err(error) => format!("{error:?}"),
                };
                let mut failures = self.failures.lock().expect("nobody panicked");
                failures.push(format!("{:?}: {failure}", self.program));
            }
        });
        futures::future::join_all(clients).await;
    }

    /// The load continues while this is awaited.
    async fn goes_on(&self) {
        let before = self.accepted.load(Ordering::SeqCst);
        wait_until(SOON, async || {
            match self.accepted.load(Ordering::SeqCst) - before {
                more if more > 4 * CLIENTS => Ok(()),
                more => Err(format!("{:?}: {more} accepted", self.program)),
            }
        })
        .await;
    }
}

async fn serve(installation: &Installation, port: u16) -> Process {
    let mut environment = installation.environment();
    let bind = format!("127.0.0.1:{port}");
    environment.retain(|(name, _)| name != "LANDFALL__SERVER__BIND");
    environment.push(("LANDFALL__SERVER__BIND".to_owned(), bind));
    Process::listening(&["serve"], &environment).await
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL, nginx, HAProxy and Caddy: scripts/test runs it"
)]
async fn servers_are_replaced_without_a_failed_request() {
    let mut installation = Installation::new();
    installation.on_postgres().await;
    installation.set("server.trusted_proxies", "127.0.0.1/32");
    installation.set("server.drain_delay", "5s");
    let ports = [free_port(), free_port()];
    let mut servers = Vec::new();
    for port in ports {
        servers.push(serve(&installation, port).await);
    }
    let mut loads = Vec::new();
    for program in ReverseProxyProgram::ALL {
        loads.push(Load::start(program, ports).await);
    }
    let goes_on = async || {
        futures::future::join_all(loads.iter().map(Load::goes_on)).await;
    };
    let replacing = async {
        goes_on().await;
        for restart in 0..RESTARTS {
            let (server, port) = (&mut servers[restart % 2], ports[restart % 2]);
            assert!(server.terminate().await.success());
            *server = serve(&installation, port).await;
            let ready = format!("{}/readyz", server.url);
            wait_until(SOON, async || {
                let response = reqwest::get(&ready)
                    .await
                    .map_err(|error| error.to_string())?;
                match response.status().as_u16() {
                    200 => Ok(()),
                    status => Err(status.to_string()),
                }
            })
            .await;
            goes_on().await;
        }
        for load in &loads {
            load.is_over.store(true, Ordering::SeqCst);
        }
    };
    tokio::join!(
        replacing,
        futures::future::join_all(loads.iter().map(Load::run))
    );
    for load in &loads {
        let accepted = load.accepted.load(Ordering::SeqCst);
        println!(
            "{:?}: {accepted} accepted over {RESTARTS} restarts",
            load.program
        );
        let failures = load.failures.lock().expect("nobody panicked");
        assert!(failures.is_empty(), "{failures:#?}\n{}", load.proxy.log());
        assert!(accepted > 100, "{accepted}");
    }
}

/// Everything through one proxy, under a path.
struct Journey {
    proxy: ReverseProxy,
    client: Client,
    base: String,
    _server: Process,
    _installation: Installation,
}

impl Journey {
    async fn start(program: ReverseProxyProgram, configuration: &str) -> Self {
        let (port, server) = (free_port(), free_port());
        let mut installation = Installation::new();
        let base = format!("https://localhost:{port}/in/take");
        installation.set("server.public_url", &base);
        installation.set("server.trusted_proxies", "127.0.0.1/32");
        installation.set("server.bind", &format!("127.0.0.1:{server}"));
        let process = Process::listening(&["up"], &installation.environment()).await;
        // Nobody listens on the second address: its requests go to the first.
        let proxy = ReverseProxy::start(program, configuration, port, [server, free_port()]).await;
        Self {
            client: client(&proxy),
            proxy,
            base,
            _server: process,
            _installation: installation,
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    async fn send(&self, request: RequestBuilder, status: u16) -> Response {
        let response = request.send().await.expect("a response");
        let found = response.status();
        if found != status {
            let text = response.text().await;
            panic!("{found}: {text:?}\n{}", self.proxy.log());
        }
        response
    }

    async fn json(&self, request: RequestBuilder, status: u16) -> Value {
        let response = self.send(request, status).await;
        response.json().await.expect("JSON")
    }

    fn location(&self, response: &Response) -> String {
        let location = response.headers()["location"].to_str().expect("text");
        assert!(
            location.starts_with(&format!("{}/v1/", self.base)),
            "{location}"
        );
        location.to_owned()
    }

    /// Waits until the file is stored, by a long poll.
    async fn stored(&self, id: &Value, bytes: &[u8]) {
        let id = id.as_str().expect("an id");
        let file = self
            .json(
                self.request(Method::GET, &format!("/v1/files/{id}?wait=60")),
                200,
            )
            .await;
        assert_eq!(file["status"], "stored", "{file}");
        assert_eq!(file["sha256"], hex(&Sha256::digest(bytes)), "{file}");
        let url = format!("{}/v1/files/{id}/content", self.base);
        assert_eq!(file["url"], url);
        let middle = bytes.len() / 2;
        let range = self
            .client
            .get(&url)
            .header("range", format!("bytes={middle}-"));
        let content = self.send(range, 206).await;
        let total = bytes.len();
        assert_eq!(
            content.headers()["content-range"].to_str().expect("text"),
            format!("bytes {middle}-{}/{total}", total - 1)
        );
        let content = content.bytes().await.expect("a body");
        assert!(content == bytes[middle..], "the second half");
    }

    async fn single(&self, bytes: &[u8]) {
        let request = self
            .request(Method::POST, "/v1/files?filename=single.bin")
            .body(bytes.to_vec());
        let response = self.send(request, 202).await;
        let location = self.location(&response);
        let file: Value = response.json().await.expect("a File");
        let at = self.json(self.client.get(location), 200).await;
        assert_eq!(at["id"], file["id"]);
        self.stored(&file["id"], bytes).await;
    }

    async fn parts(&self, bytes: &[u8]) {
        let part_len = 5 * MIB;
        let session = json!({ "original_filename": "parts.bin", "total_size_bytes": bytes.len(),
                              "chunk_size_bytes": part_len });
        let request = self.request(Method::POST, "/v1/uploads").json(&session);
        let response = self.send(request, 201).await;
        let location = self.location(&response);
        let sends = bytes.chunks(part_len).enumerate().map(|(index, part)| {
            let url = format!("{location}/parts/{}", index + 1);
            let request = self.client.put(url).body(part.to_vec());
            self.send(request, 200)
        });
        futures::stream::iter(sends)
            .buffer_unordered(4)
            .for_each(async |_| {})
            .await;
        let complete = self.client.post(format!("{location}/complete"));
        let file = self.json(complete, 202).await;
        self.stored(&file["id"], bytes).await;
    }

    async fn tus(&self, bytes: &[u8]) {
        let create = self
            .request(Method::POST, "/v1/tus")
            .header("tus-resumable", "1.0.0")
            .header("upload-length", bytes.len().to_string());
        let created = self.send(create, 201).await;
        let location = self.location(&created);
        let middle = bytes.len() / 2;
        for (offset, piece) in [(0, &bytes[..middle]), (middle, &bytes[middle..])] {
            let append = self
                .client
                .patch(&location)
                .header("tus-resumable", "1.0.0")
                .header("upload-offset", offset.to_string())
                .header("content-type", "application/offset+octet-stream")
                .body(piece.to_vec());
            self.send(append, 204).await;
        }
        let id = location.rsplit('/').next().expect("an id");
        self.stored(&id.into(), bytes).await;
    }

    /// The page under the path, and an update of it as it happens.
    async fn dashboard(&self) {
        let page = self.send(self.request(Method::GET, "/files"), 200).await;
        let page = page.text().await.expect("a page");
        assert!(page.contains("href=\"/in/take/"), "{page}");
        let stream = self
            .send(self.request(Method::GET, "/live/overview"), 200)
            .await;
        assert_eq!(stream.headers()["content-type"], "text/event-stream");
        let mut events = stream.bytes_stream();
        let next = tokio::time::timeout(SOON, events.next()).await;
        next.expect("a first event in time")
            .expect("an event")
            .expect("an event");
        let upload = self
            .request(Method::POST, "/v1/files?filename=seen.txt")
            .body("seen");
        self.send(upload, 202).await;
        let begun = Instant::now();
        let seen = async {
            let mut text = String::new();
            while let Some(Ok(bytes)) = events.next().await {
                text.push_str(&String::from_utf8_lossy(&bytes));
                if text.contains("seen.txt") || text.matches("data:").count() > 1 {
                    return;
                }
            }
            panic!("the stream ended: {text}");
        };
        tokio::time::timeout(SOON, seen)
            .await
            .expect("an update in time");
        assert!(
            begun.elapsed() < Duration::from_secs(10),
            "updates are held back"
        );
    }

    /// A long poll for a file that is not stored ends by itself, before the proxy gives up.
    async fn long_poll(&self) {
        let create = self
            .request(Method::POST, "/v1/uploads")
            .json(&json!({ "original_filename": "waits.bin", "total_size_bytes": 5 }));
        let session = self.json(create, 201).await;
        let id = session["file_id"].as_str().expect("an id");
        let begun = Instant::now();
        let file = self
            .json(
                self.request(Method::GET, &format!("/v1/files/{id}?wait=60")),
                200,
            )
            .await;
        assert_eq!(file["status"], "uploading");
        assert!(
            begun.elapsed() > Duration::from_secs(45),
            "{:?}",
            begun.elapsed()
        );
    }

    /// HTTP/2 between the client and the proxy.
    async fn http2(&self) {
        let output = tokio::process::Command::new("curl")
            .args(["--silent", "--http2", "--fail", "--output", "/dev/null"])
            .args(["--write-out", "%{http_version}", "--cacert"])
            .arg(self.proxy.authority())
            .args(["--data-binary", "over HTTP/2"])
            .arg(format!("{}/v1/files?filename=a.txt", self.base))
            .output()
            .await
            .expect("curl runs");
        let version = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && version == "2", "{output:?}");
    }

    async fn everything(&self, size: usize) {
        let bytes = noise(size);
        self.single(&bytes).await;
        self.parts(&bytes).await;
        self.tus(&bytes).await;
        self.dashboard().await;
        self.http2().await;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn noise(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    StdRng::seed_from_u64(size as u64).fill(&mut bytes[..]);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs nginx: scripts/test runs it"
)]
async fn everything_works_through_nginx() {
    let program = ReverseProxyProgram::Nginx;
    let journey = Journey::start(program, documented(program)).await;
    journey.everything(200 * MIB).await;
    journey.long_poll().await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs HAProxy: scripts/test runs it"
)]
async fn everything_works_through_haproxy() {
    let program = ReverseProxyProgram::Haproxy;
    let journey = Journey::start(program, documented(program)).await;
    journey.everything(24 * MIB).await;
    journey.long_poll().await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs Caddy: scripts/test runs it"
)]
async fn everything_works_through_caddy() {
    let program = ReverseProxyProgram::Caddy;
    let journey = Journey::start(program, documented(program)).await;
    journey.everything(24 * MIB).await;
    journey.long_poll().await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs nginx: scripts/test runs it"
)]
async fn the_command_line_trusts_a_given_authority_and_names_what_a_proxy_refuses() {
    let program = ReverseProxyProgram::Nginx;
    let (as_is, limited) = ("client_max_body_size 0;", "client_max_body_size 1m;");
    assert!(documented(program).contains(as_is));
    let configuration = documented(program).replace(as_is, limited);
    let journey = Journey::start(program, &configuration).await;
    let folder = tempfile::tempdir().expect("a folder");
    let authority = journey.proxy.authority().display().to_string();
    let file = folder.path().join("large.bin");
    std::fs::write(&file, noise(3 * MIB)).expect("a file");
    let file = file.display().to_string();
    let environment = [
        ("LANDFALL_URL".to_owned(), journey.base.clone()),
        (
            "XDG_STATE_HOME".to_owned(),
            folder.path().display().to_string(),
        ),
    ];
    let run = async |arguments: &[&str]| {
        let output = command(arguments, &environment).output().await;
        let output = output.expect("landfall runs");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), text)
    };
    let (code, text) = run(&["file", "list"]).await;
    assert_eq!(code, Some(1), "the authority is not known: {text}");
    let (code, text) = run(&["file", "list", "--cacert", &authority]).await;
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = run(&["file", "list", "--cacert", &file]).await;
    assert!(
        code == Some(1) && text.contains("has no certificates in PEM"),
        "{text}"
    );
    let (code, text) = run(&["upload", &file, "--cacert", &authority]).await;
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("(nginx/") && text.contains("client_max_body_size"),
        "{text}"
    );
    assert!(!text.contains('<'), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs nginx and HAProxy: scripts/test runs it"
)]
async fn buffered_requests_work() {
    for (program, from, to) in [
        (
            ReverseProxyProgram::Nginx,
            "proxy_request_buffering off;",
            "proxy_request_buffering on;",
        ),
        (
            ReverseProxyProgram::Haproxy,
            "option forwardfor\n",
            "option forwardfor\n    option http-buffer-request\n",
        ),
    ] {
        let unbuffered = documented(program);
        assert!(unbuffered.contains(from), "{program:?}");
        let journey = Journey::start(program, &unbuffered.replace(from, to)).await;
        journey.everything(12 * MIB).await;
    }
}
