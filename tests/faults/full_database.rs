//! A SQLite database whose files cannot grow for a while, as on a full disk: acknowledged data survives, writes are
//! rejected, `/readyz` reports it, and reads still work.

use super::cluster::AFTER_A_KILL;
use crate::support::{Installation, Process, app::json, process};
use landfall_test_servers::wait_until;
use reqwest::{Client, StatusCode};
use rustix::process::{Resource, Rlimit};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    sync::Mutex,
    time::{Duration, Instant},
};

/// Less than the write-ahead log has, more than an upload of this test.
const NO_ROOM: u64 = 16 * 1024;
const FULL_FOR: Duration = Duration::from_secs(6);
const CLIENTS: usize = 6;

/// What the clients of the API saw.
#[derive(Debug, Default)]
struct Responses {
    accepted: BTreeSet<String>,
    refused: usize,
}

struct FullDatabase {
    installation: Installation,
    client: Client,
    api: Process,
    responses: Mutex<Responses>,
}

impl FullDatabase {
    async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut installation = Installation::new();
        installation.set("auth.mode", "tokens");
        installation.set("sweep.interval", "1s");
        let environment = installation.environment();
        let migrated = process::command(&["migrate", "up"], &environment).status();
        assert!(migrated.await.expect("landfall runs").success());
        Self {
            api: Process::listening(&["serve"], &environment).await,
            installation,
            client: Client::new(),
            responses: Mutex::default(),
        }
    }

    async fn token(&self) -> String {
        let arguments = ["token", "create", "--owner", "a", "--scope", "upload,read"];
        let made = process::command(&arguments, &self.installation.environment()).output();
        let made = String::from_utf8(made.await.expect("landfall runs").stdout).expect("text");
        let token = made.split_whitespace().find(|word| word.starts_with("lf_"));
        token
            .unwrap_or_else(|| panic!("no token in {made}"))
            .to_owned()
    }

    fn may_grow_to(&self, bytes: Option<u64>) {
        let limit = Rlimit {
            current: bytes,
            maximum: None,
        };
        rustix::process::prlimit(Some(self.api.pid()), Resource::Fsize, limit).expect("a limit");
    }

    async fn post(&self, token: &str) -> StatusCode {
        let request = self
            .client
            .post(format!("{}/v1/files?filename=a.txt", self.api.url));
        let answer = request
            .bearer_auth(token)
            .body("hello")
            .send()
            .await
            .expect("a response");
        let status = answer.status();
        let mut id = None;
        if status == StatusCode::ACCEPTED {
            let file: Value = answer.json().await.expect("a File");
            id = file["id"].as_str().map(str::to_owned);
        }
        let mut responses = self.responses.lock().expect("nobody panicked");
        match id {
            Some(id) => responses.accepted.insert(id),
            None => {
                assert!(
                    status == StatusCode::SERVICE_UNAVAILABLE
                        || status == StatusCode::INSUFFICIENT_STORAGE,
                    "{status}"
                );
                responses.refused += 1;
                false
            }
        };
        status
    }

    /// Uploads from several clients until then.
    async fn upload_until(&self, token: &str, deadline: Instant) {
        let clients = (0..CLIENTS).map(|_| async {
            while Instant::now() < deadline {
                self.post(token).await;
            }
        });
        futures::future::join_all(clients).await;
    }

    async fn get(&self, token: &str, path: &str) -> reqwest::Response {
        let request = self.client.get(format!("{}{path}", self.api.url));
        request.bearer_auth(token).send().await.expect("a response")
    }

    async fn all_accepted_are_found(&self, token: &str) -> usize {
        let accepted = self
            .responses
            .lock()
            .expect("nobody panicked")
            .accepted
            .clone();
        for id in &accepted {
            json(self.get(token, &format!("/v1/files/{id}")).await, 200).await;
        }
        accepted.len()
    }

    fn refused(&self) -> usize {
        self.responses.lock().expect("nobody panicked").refused
    }

    async fn database(&self) -> String {
        let report: Value = self
            .get("", "/readyz")
            .await
            .json()
            .await
            .expect("a report");
        report["checks"]["database"]["status"]
            .as_str()
            .expect("a status")
            .to_owned()
    }

    async fn is_seen(&self, status: &str) {
        wait_until(Duration::from_secs(15), async || {
            let database = self.database().await;
            if database == status {
                Ok(())
            } else {
                Err(database)
            }
        })
        .await;
    }

    /// Reads are served, even with a token whose last use cannot be written.
    async fn reads(&self, tokens: [&str; 2], stored: &str) {
        for token in tokens {
            json(self.get(token, "/v1/files").await, 200).await;
            json(self.get(token, &format!("/v1/files/{stored}")).await, 200).await;
            let content = self
                .get(token, &format!("/v1/files/{stored}/content"))
                .await;
            assert_eq!(content.status(), 200);
            assert_eq!(content.text().await.expect("the content"), "hello");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_acknowledged_while_the_database_is_full_survive_a_kill() {
    let mut full = FullDatabase::start().await;
    let (token, unused) = (full.token().await, full.token().await);
    let worker = Process::spawn(&["worker"], &full.installation.environment());
    full.post(&token).await;
    let first = full
        .responses
        .lock()
        .expect("nobody panicked")
        .accepted
        .first()
        .cloned();
    let first = first.expect("it was accepted");
    let path = format!("/v1/files/{first}?wait=30");
    let stored = json(full.get(&token, &path).await, 200).await;
    assert_eq!(stored["status"], "stored", "{stored}");

    full.may_grow_to(Some(NO_ROOM));
    let until = Instant::now() + FULL_FOR;
    let beside = async {
        full.is_seen("down").await;
        full.reads([&token, &unused], &first).await;
        while Instant::now() + Duration::from_secs(1) < until {
            assert_eq!(full.database().await, "down");
        }
    };
    tokio::join!(full.upload_until(&token, until), beside);
    assert!(full.refused() > 0, "the database was never full");
    full.all_accepted_are_found(&token).await;

    full.may_grow_to(None);
    full.is_seen("ok").await;
    let refused = full.refused();
    full.upload_until(&token, Instant::now() + Duration::from_secs(1))
        .await;
    assert_eq!(full.refused(), refused, "refused though there is room");
    let accepted = full.all_accepted_are_found(&token).await;
    full.api.kill().await;
    full.api = Process::listening(&["serve"], &full.installation.environment()).await;
    assert_eq!(full.all_accepted_are_found(&token).await, accepted);
    wait_until(AFTER_A_KILL, async || {
        let waiting = json(full.get(&token, "/v1/files?status=staged").await, 200).await;
        match waiting["items"].as_array().map(Vec::len) {
            Some(0) => Ok(()),
            _ => Err(waiting),
        }
    })
    .await;
    drop(worker);
}
