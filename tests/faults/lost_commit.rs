//! A COMMIT that PostgreSQL executes and whose response is lost: the rows and the bytes are kept.

use super::cluster::AFTER_A_KILL;
use crate::support::{Installation, Process, app::json};
use landfall_core::digest::Sha256Digest;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use url::Url;

/// A proxy between an API and PostgreSQL. The first transaction with a statement that starts like this is committed,
/// and its connection is closed before the response.
struct CommitProxy {
    url: Url,
    lost: Arc<AtomicUsize>,
}

impl CommitProxy {
    async fn to(database: &str, statement: &'static str) -> Self {
        let mut url: Url = database.parse().expect("a URL");
        let port = url.port().unwrap_or(5432);
        let server = format!("{}:{port}", url.host_str().expect("a host"));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let own = listener.local_addr().expect("an address");
        url.set_host(Some("127.0.0.1")).expect("a host");
        url.set_port(Some(own.port())).expect("a port");
        let lost = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&lost);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.expect("PostgreSQL");
                tokio::spawn(carry(client, server, statement, Arc::clone(&counted)));
            }
        });
        Self { url, lost }
    }
}

/// When a client commits, it has received all earlier responses, so the next one is for the commit.
async fn carry(
    mut client: TcpStream,
    mut server: TcpStream,
    statement: &'static str,
    lost: Arc<AtomicUsize>,
) {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let committing = AtomicBool::new(false);
    let asking = async {
        let (mut piece, mut asked) = (vec![0; 64 * 1024], Vec::new());
        loop {
            let read = from_client.read(&mut piece).await.unwrap_or(0);
            if read == 0 {
                return;
            }
            asked.extend_from_slice(&piece[..read]);
            if has(&asked, "COMMIT") {
                let wanted = has(&asked, statement) && lost.load(Ordering::SeqCst) == 0;
                committing.store(wanted, Ordering::SeqCst);
                asked.clear();
            }
            if to_server.write_all(&piece[..read]).await.is_err() {
                return;
            }
        }
    };
    let answering = async {
        let mut piece = vec![0; 64 * 1024];
        loop {
            let read = from_server.read(&mut piece).await.unwrap_or(0);
            if committing.load(Ordering::SeqCst) {
                lost.fetch_add(1, Ordering::SeqCst);
                return;
            }
            if read == 0 || to_client.write_all(&piece[..read]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = asking => {}
        () = answering => {}
    }
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

/// An API whose first commit of such a statement gets no response, and a worker.
struct LostCommitCluster {
    api: Process,
    proxy: CommitProxy,
    _worker: Process,
    _installation: Installation,
}

impl LostCommitCluster {
    async fn start(statement: &'static str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut installation = Installation::new();
        installation.on_postgres().await;
        let worker = Process::spawn(&["worker"], &installation.environment());
        let direct = installation.environment();
        let direct = direct
            .iter()
            .find(|(name, _)| name == "LANDFALL__DATABASE__URL");
        let proxy = CommitProxy::to(&direct.expect("a database").1, statement).await;
        installation.set("database.url", proxy.url.as_str());
        Self {
            api: Process::listening(&["serve"], &installation.environment()).await,
            proxy,
            _worker: worker,
            _installation: installation,
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        Client::new().request(method, format!("{}{path}", self.api.url))
    }

    async fn ask(&self, path: &str, with: impl Fn(RequestBuilder) -> RequestBuilder) -> Response {
        let request = self.request(Method::POST, path);
        let request = with(request.header("Idempotency-Key", "k"));
        request.send().await.expect("a response")
    }

    fn has_lost_one(&self) {
        assert_eq!(
            self.proxy.lost.load(Ordering::SeqCst),
            1,
            "answers to COMMIT lost"
        );
    }

    async fn is_stored_alone(&self, id: &Value, bytes: &[u8]) {
        let path = format!("/v1/files/{}?wait=60", id.as_str().expect("an id"));
        let stored = self.request(Method::GET, &path).timeout(AFTER_A_KILL * 2);
        let stored = json(stored.send().await.expect("a response"), 200).await;
        assert_eq!(stored["status"], "stored", "{stored}");
        assert_eq!(stored["sha256"], Sha256Digest::compute(bytes).to_string());
        let all = self.request(Method::GET, "/v1/files").send().await;
        let all = json(all.expect("a response"), 200).await;
        assert_eq!(all["items"].as_array().map(Vec::len), Some(1), "{all}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn upload_session_with_an_unconfirmed_commit_accepts_its_parts() {
    let shaken = LostCommitCluster::start("INSERT INTO \"uploads\"").await;
    let asked = json!({ "original_filename": "a", "total_size_bytes": 5 });
    let ask = async || {
        shaken
            .ask("/v1/uploads", |request| request.json(&asked))
            .await
    };
    let first = ask().await;
    shaken.has_lost_one();
    assert_eq!(first.status(), 503, "{first:?}");
    let again = ask().await;
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    let session = json(again, 201).await;
    let path = format!("/v1/uploads/{}", session["id"].as_str().expect("an id"));
    let part = shaken.request(Method::PUT, &format!("{path}/parts/1"));
    json(part.body("hello").send().await.expect("a response"), 200).await;
    let complete = shaken.request(Method::POST, &format!("{path}/complete"));
    let file = json(complete.send().await.expect("a response"), 202).await;
    shaken.is_stored_alone(&file["id"], b"hello").await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn file_with_an_unconfirmed_commit_is_stored() {
    let shaken = LostCommitCluster::start("INSERT INTO \"files\"").await;
    let path = "/v1/files?filename=a";
    let ask = async || shaken.ask(path, |request| request.body("hello")).await;
    // The bytes cannot be sent again by everyone, so the API looks whether their row is there.
    let file = json(ask().await, 202).await;
    shaken.has_lost_one();
    let again = ask().await;
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert_eq!(json(again, 202).await, file);
    shaken.is_stored_alone(&file["id"], b"hello").await;
}
