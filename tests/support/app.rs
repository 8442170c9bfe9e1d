//! A complete installation in this process: the API listening on a port, workers on or off, and a recording webhook
//! receiver.

use super::{ClientLog, Installation, Invariants};
use landfall::{
    api::Shutdown,
    server::{self, ProcessParts, assemble, connect_redis},
};
use landfall_core::db::Database;
use landfall_test_servers::{Receiver, S3Server, wait_until};
use landfall_workers::{QueueName, Workers};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;
use std::{sync::Arc, time::Duration};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Timeout for operations that should take a moment.
pub const SOON: Duration = Duration::from_secs(20);

/// Configures a test app.
#[derive(Debug)]
pub struct Builder {
    pub installation: Installation,
    postgres: bool,
    workers: Vec<QueueName>,
}

/// A running installation.
#[derive(Debug)]
pub struct TestApp {
    pub installation: Installation,
    pub parts: ProcessParts,
    pub url: String,
    pub client: Client,
    pub receiver: Receiver,
    pub log: ClientLog,
    _bucket: Option<S3Server>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Builder {
    pub fn postgres(mut self) -> Self {
        self.postgres = true;
        self
    }

    pub fn s3(mut self, server: &S3Server) -> Self {
        self.installation.store_in(server);
        self
    }

    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.installation.set(key, value);
        self
    }

    async fn move_into_a_bucket(&mut self) -> S3Server {
        let server = S3Server::start().await;
        self.postgres = true;
        if !self.installation.is_in_a_bucket() {
            self.installation.store_in(&server);
            self.installation.set("staging.backend", "s3");
        }
        server
    }

    /// Process only these queues.
    pub fn workers(mut self, queues: &[QueueName]) -> Self {
        self.workers = queues.to_vec();
        self
    }

    pub async fn start(mut self) -> TestApp {
        let bucket = match over_a_bucket() {
            true => Some(self.move_into_a_bucket().await),
            false => None,
        };
        if self.postgres {
            self.installation.on_postgres().await;
        }
        let config = self.installation.config();
        let db = Database::open(&config.database.url, config.database.max_connections)
            .await
            .expect("a database");
        db.migrate_up().await.expect("migrations");
        drop(db);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let redis = connect_redis(&config, None).expect("a Redis URL");
        let public_url = config.server.public_url.clone();
        let public_url = public_url.unwrap_or_else(|| url.parse().expect("a URL"));
        let parts = assemble(Arc::new(config), redis, public_url)
            .await
            .expect("all parts");
        let stop = CancellationToken::new();
        let mut tasks = Vec::new();
        let serve = server::serve(
            parts.app.clone(),
            parts.queues.clone(),
            parts.meter.clone(),
            listener,
            Shutdown::immediate(stop.clone()),
        );
        tasks.push(tokio::spawn(async move {
            serve.await.expect("the API serves to the end")
        }));
        if !self.workers.is_empty() {
            let ProcessParts {
                app,
                queues,
                deliverer,
                meter,
                worker,
            } = parts.clone();
            let workers = Workers {
                name: worker,
                queues: self.workers,
                concurrency: None,
                meter,
                finish_within: Duration::from_secs(5),
            };
            let run = landfall_workers::run(app, queues, deliverer, workers, stop.clone());
            tasks.push(tokio::spawn(async move {
                run.await.expect("the workers work to the end")
            }));
        }
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("a client");
        let receiver = Receiver::start().await;
        TestApp {
            installation: self.installation,
            parts,
            url,
            client,
            receiver,
            log: ClientLog::default(),
            _bucket: bucket,
            stop,
            tasks,
        }
    }
}

/// With LANDFALL_TEST_OVER=bucket every app uses PostgreSQL, with staging and storage in a bucket, unless its test says
/// otherwise.
fn over_a_bucket() -> bool {
    match std::env::var("LANDFALL_TEST_OVER").as_deref() {
        Ok("bucket") => true,
        Ok(other) => panic!("LANDFALL_TEST_OVER is `bucket` or not set, not `{other}`"),
        Err(_) => false,
    }
}

impl TestApp {
    /// All workers, on SQLite and folders.
    pub fn builder() -> Builder {
        // reqwest is built without a TLS provider; every test may be the first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Builder {
            installation: Installation::new(),
            postgres: false,
            workers: QueueName::ALL.to_vec(),
        }
    }

    pub async fn start() -> Self {
        Self::builder().start().await
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.url))
    }

    /// Returns the JSON at a path; asserts 200.
    pub async fn read(&self, path: &str) -> Value {
        json(self.get(path).send().await.expect("a response"), 200).await
    }

    /// Returns the text at a path; asserts 200.
    pub async fn text(&self, path: &str) -> String {
        let answer = self.get(path).send().await.expect("a response");
        assert_eq!(answer.status(), 200, "{path}");
        answer.text().await.expect("a body")
    }

    pub fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(format!("{}{path}", self.url))
    }

    pub fn delete(&self, path: &str) -> RequestBuilder {
        self.client.delete(format!("{}{path}", self.url))
    }

    pub fn request(&self, method: reqwest::Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    /// Uploads raw bytes, records them in the client log, and returns the File of the 202.
    pub async fn upload(&self, name: &str, bytes: impl Into<reqwest::Body>) -> Value {
        let body: reqwest::Body = bytes.into();
        let sent = body.as_bytes().map(<[u8]>::to_vec);
        let response = self
            .post("/v1/files")
            .query(&[("filename", name)])
            .body(body)
            .send()
            .await;
        let response = response.expect("a response");
        assert_eq!(response.status(), 202, "{:?}", response.text().await);
        let file: Value = response.json().await.expect("a File");
        if let Some(sent) = sent {
            let id = file["id"].as_str().expect("an id");
            self.log.acknowledged(id, &sent);
        }
        file
    }

    /// The invariants of what [`TestApp::upload`] sent and what was added to the log.
    pub fn invariants(&self) -> Invariants<'_> {
        let app = &self.parts.app;
        let bytes_on_disk = self.installation.bytes_on_disk(app);
        Invariants::new(app, bytes_on_disk, &self.log, &self.receiver)
    }

    /// Waits until the file is final, and returns it.
    pub async fn settled(&self, id: &Value) -> Value {
        let id = id.as_str().expect("an id");
        wait_until(SOON, async || {
            let file = self.file(id).await;
            ["stored", "failed", "deleted"]
                .contains(&file["status"].as_str().unwrap_or(""))
                .then_some(file)
        })
        .await
    }

    pub async fn file(&self, id: &str) -> Value {
        json(
            self.get(&format!("/v1/files/{id}"))
                .send()
                .await
                .expect("a response"),
            200,
        )
        .await
    }

    /// Registers the receiver's path as an endpoint for these event types, and returns the Webhook with its secret.
    pub async fn webhook(&self, path: &str, event_types: &[&str]) -> Value {
        let body =
            serde_json::json!({ "url": self.receiver.url(path), "event_types": event_types });
        json(
            self.post("/v1/webhooks")
                .json(&body)
                .send()
                .await
                .expect("a response"),
            201,
        )
        .await
    }

    /// Runs one sweep.
    pub async fn sweep(&self) -> landfall_core::sweep::SweepReport {
        landfall_core::sweep::sweep(&self.parts.app)
            .await
            .expect("the sweep runs")
    }

    /// Stops workers and API, like SIGTERM.
    pub async fn stop(mut self) -> Installation {
        self.stop.cancel();
        for task in self.tasks.drain(..) {
            task.await.expect("a task ends without a panic");
        }
        std::mem::replace(&mut self.installation, Installation::new())
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        self.stop.cancel();
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Returns the JSON of a response; asserts its status.
pub async fn json(response: Response, status: u16) -> Value {
    let found = response.status();
    let text = response.text().await.expect("a body");
    assert_eq!(found, status, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("not JSON ({error}): {text}"))
}

/// Asserts a problem document with this status and code.
pub async fn problem(response: Response, status: u16, code: &str) -> Value {
    let content_type = response.headers()["content-type"]
        .to_str()
        .expect("a content type")
        .to_owned();
    assert!(
        response.headers().contains_key("x-request-id"),
        "every response carries X-Request-Id"
    );
    let problem = json(response, status).await;
    assert_eq!(content_type, "application/problem+json");
    assert_eq!(problem["code"], code, "{problem}");
    assert_eq!(problem["status"], status);
    for field in ["type", "title", "detail"] {
        assert!(problem[field].is_string(), "{field} is missing: {problem}");
    }
    problem
}
