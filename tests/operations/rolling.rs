//! Two APIs and two workers under load are replaced one process at a time by a version that knows a further migration,
//! and back again: no request fails for it, and no file.

use crate::support::{Installation, Process, process};
use landfall_test_servers::{Receiver, wait_until};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::RwLock;

const CLIENTS: usize = 4;
const SOON: Duration = Duration::from_secs(60);

/// What the newer version has in its environment.
const NEWER: (&str, &str) = ("LANDFALL_FURTHER_MIGRATION", "1");

/// The targets of a load balancer: a stopping process gets no new requests.
struct Balancer {
    targets: RwLock<Vec<String>>,
    next: AtomicUsize,
    client: Client,
    accepted: Mutex<BTreeMap<String, usize>>,
    is_over: AtomicBool,
}

impl Balancer {
    /// Sends a request to one of the targets. A target is removed once its requests are done.
    async fn send(
        &self,
        request: impl Fn(&Client, &str) -> RequestBuilder,
    ) -> (StatusCode, String) {
        let targets = self.targets.read().await;
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let request = request(&self.client, &targets[next % targets.len()]);
        let response = request.send().await.expect("every request is answered");
        (response.status(), response.text().await.expect("a body"))
    }

    async fn remove(&self, url: &str) {
        self.targets.write().await.retain(|target| target != url);
    }

    async fn add(&self, url: &str) {
        self.targets.write().await.push(url.to_owned());
    }

    async fn upload(&self, bytes: Vec<u8>) {
        let size = bytes.len();
        let (status, text) = self
            .send(|client, target| {
                let url = format!("{target}/v1/files?filename=a.bin");
                client.post(url).body(bytes.clone())
            })
            .await;
        assert_eq!(status, StatusCode::ACCEPTED, "{text}");
        let file: Value = serde_json::from_str(&text).expect("a File");
        let id = file["id"].as_str().expect("an id").to_owned();
        self.accepted
            .lock()
            .expect("nobody panicked")
            .insert(id, size);
    }

    async fn get(&self, path: &str) -> Value {
        let (status, text) = self
            .send(|client, target| client.get(format!("{target}{path}")))
            .await;
        assert_eq!(status, StatusCode::OK, "{text}");
        serde_json::from_str(&text).expect("JSON")
    }

    async fn load(&self) {
        let clients = (0..CLIENTS).map(|client| async move {
            let mut number = 0;
            while !self.is_over.load(Ordering::SeqCst) {
                number += 1;
                self.upload(vec![client as u8; 100 + number % 1000]).await;
                self.get("/v1/files?limit=5").await;
            }
        });
        futures::future::join_all(clients).await;
    }

    fn accepted(&self) -> usize {
        self.accepted.lock().expect("nobody panicked").len()
    }

    /// The load continues while this is awaited.
    async fn goes_on(&self) {
        let before = self.accepted();
        wait_until(SOON, async || match self.accepted() - before {
            more if more > 2 * CLIENTS => Ok(()),
            more => Err(format!("{more} accepted")),
        })
        .await;
    }
}

struct Cluster {
    installation: Installation,
    apis: Vec<Process>,
    workers: Vec<Process>,
}

impl Cluster {
    /// Each process in turn: taken out, ended, replaced, used.
    async fn replace_by(&mut self, environment: &[(String, String)], balancer: &Balancer) {
        for api in &mut self.apis {
            balancer.remove(&api.url).await;
            assert!(api.terminate().await.success());
            *api = Process::listening(&["serve"], environment).await;
            balancer.add(&api.url).await;
            balancer.goes_on().await;
        }
        for worker in &mut self.workers {
            assert!(worker.terminate().await.success());
            *worker = Process::spawn(&["worker"], environment);
            balancer.goes_on().await;
        }
    }
}

async fn migrate(arguments: &[&str], environment: &[(String, String)]) -> (bool, String) {
    let arguments = [&["migrate"][..], arguments].concat();
    let output = process::command(&arguments, environment).output().await;
    let output = output.expect("landfall runs");
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn cluster_is_upgraded_and_rolled_back_under_load_and_nothing_fails() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut installation = Installation::new();
    installation.on_postgres().await;
    installation.set("sweep.interval", "1s");
    let old = installation.environment();
    let mut new = old.clone();
    new.push((NEWER.0.to_owned(), NEWER.1.to_owned()));
    let mut cluster = Cluster {
        apis: vec![
            Process::listening(&["serve"], &old).await,
            Process::listening(&["serve"], &old).await,
        ],
        workers: vec![
            Process::spawn(&["worker"], &old),
            Process::spawn(&["worker"], &old),
        ],
        installation,
    };
    let balancer = Balancer {
        targets: RwLock::new(cluster.apis.iter().map(|api| api.url.clone()).collect()),
        next: AtomicUsize::default(),
        client: Client::builder()
            .pool_max_idle_per_host(0)
            .build()
            .expect("a client"),
        accepted: Mutex::default(),
        is_over: AtomicBool::default(),
    };
    let receiver = Receiver::start().await;
    let hook = json!({ "url": receiver.url("/hook") });
    let (status, text) = balancer
        .send(|client, target| client.post(format!("{target}/v1/webhooks")).json(&hook))
        .await;
    assert_eq!(status, StatusCode::CREATED, "{text}");

    let change = async {
        balancer.goes_on().await;
        // The schema first, then the processes.
        let (done, said) = migrate(&["up"], &new).await;
        assert!(done && said.contains("further_indexes"), "{said}");
        balancer.goes_on().await;
        cluster.replace_by(&new, &balancer).await;
        let (done, said) = migrate(&["down", "--yes"], &new).await;
        assert!(
            !done && said.contains("are running on"),
            "the schema was taken from under them: {said}"
        );
        cluster.replace_by(&old, &balancer).await;
        let (done, said) = migrate(&["up"], &old).await;
        assert!(done, "{said}");
        balancer.is_over.store(true, Ordering::SeqCst);
    };
    tokio::join!(balancer.load(), change);

    let accepted = balancer.accepted();
    wait_until(SOON, async || {
        let mut stored = 0;
        for status in ["staged", "finalizing"] {
            let list = balancer.get(&format!("/v1/files?status={status}")).await;
            stored += list["items"].as_array().map_or(0, Vec::len);
        }
        match stored {
            0 => Ok(()),
            waiting => Err(format!("{waiting} wait")),
        }
    })
    .await;
    let failed = balancer.get("/v1/files?status=failed").await;
    assert_eq!(failed["items"], json!([]), "files failed");
    let ids: Vec<_> = balancer
        .accepted
        .lock()
        .expect("nobody panicked")
        .clone()
        .into_iter()
        .collect();
    for (id, size) in ids {
        let file = balancer.get(&format!("/v1/files/{id}")).await;
        assert_eq!(
            (&file["status"], &file["size_bytes"]),
            (&json!("stored"), &json!(size))
        );
    }
    receiver.wait_for(accepted, SOON).await;
    for process in cluster.apis.iter_mut().chain(&mut cluster.workers) {
        assert!(process.terminate().await.success());
    }
    drop(cluster.installation);
}
