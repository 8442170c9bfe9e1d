//! Eight clients add files of one owner to one batch on PostgreSQL, half of them in one request and half in sessions,
//! while workers store them: no deadlock, and no rejection.

use crate::support::{Installation, Process, app::json, process};
use landfall_test_servers::{PostgresServer, wait_until};
use reqwest::{Client, StatusCode};
use serde_json::json;
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

const CLIENTS: usize = 8;
const MEASURED_FOR: Duration = Duration::from_secs(4);
const SOON: Duration = Duration::from_secs(90);

struct Clients {
    url: String,
    token: String,
    client: Client,
}

impl Clients {
    /// One request of client `number`; its status.
    async fn ask(&self, number: usize, batch: Option<&str>) -> StatusCode {
        let request = if number.is_multiple_of(2) {
            let request = self
                .client
                .post(format!("{}/v1/files?filename=a.txt", self.url));
            let request = match batch {
                Some(batch) => request.query(&[("batch_id", batch)]),
                None => request,
            };
            request.body("hello")
        } else {
            let mut asked = json!({ "original_filename": "a.txt", "total_size_bytes": 5 });
            if let Some(batch) = batch {
                asked["batch_id"] = json!(batch);
            }
            self.client
                .post(format!("{}/v1/uploads", self.url))
                .json(&asked)
        };
        let response = request.bearer_auth(&self.token).send().await;
        response.expect("a response").status()
    }

    /// Requests per second of all clients together, all with 2xx responses.
    async fn rate(&self, batch: Option<&str>) -> f64 {
        let (done, began) = (AtomicUsize::new(0), Instant::now());
        let clients = (0..CLIENTS).map(|number| {
            let done = &done;
            async move {
                while began.elapsed() < MEASURED_FOR {
                    let status = self.ask(number, batch).await;
                    assert!(status.is_success(), "client {number}: {status}");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        futures::future::join_all(clients).await;
        done.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_one_batch_neither_deadlock_nor_fail() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut installation = Installation::new();
    installation.on_postgres().await;
    installation.set("auth.mode", "tokens");
    let environment = installation.environment();
    let arguments = ["token", "create", "--owner", "a", "--scope", "upload,read"];
    let made = process::command(&arguments, &environment).output().await;
    let made = String::from_utf8(made.expect("landfall runs").stdout).expect("text");
    let token = made.split_whitespace().find(|word| word.starts_with("lf_"));
    let api = Process::listening(&["serve"], &environment).await;
    let worker = Process::spawn(&["worker"], &environment);
    let clients = Clients {
        url: api.url.clone(),
        token: token.expect("a token").to_owned(),
        client: Client::new(),
    };
    let ask = async |path: &str| {
        let request = clients.client.post(format!("{}{path}", clients.url));
        let request = request.bearer_auth(&clients.token).json(&json!({}));
        request.send().await.expect("a response")
    };
    let batch = json(ask("/v1/batches").await, 201).await;
    let batch = batch["id"].as_str().expect("an id");
    clients.rate(None).await;
    let (apart, together) = (clients.rate(None).await, clients.rate(Some(batch)).await);
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    let url = environment
        .iter()
        .find(|(name, _)| name == "LANDFALL__DATABASE__URL");
    let deadlocks = PostgresServer::shared()
        .query(&url.expect("a URL").1, deadlocks)
        .await;
    println!(
        "{apart:.0} requests a second without a batch, {together:.0} within one, {deadlocks} deadlocks"
    );
    assert_eq!(deadlocks.trim(), "0");
    assert!(
        together > 0.5 * apart,
        "{apart:.0} without, {together:.0} with"
    );

    json(ask(&format!("/v1/batches/{batch}/finalize")).await, 202).await;
    wait_until(SOON, async || {
        let request = clients
            .client
            .get(format!("{}/v1/batches/{batch}", clients.url));
        let found = request.bearer_auth(&clients.token).send().await;
        let found = json(found.expect("a response"), 200).await;
        // Half of the files are in sessions that are never filled.
        match (
            found["stored_count"].as_i64(),
            found["total_files"].as_i64(),
        ) {
            (Some(stored), Some(total)) if stored > 0 && stored * 2 > total * 3 / 4 => Ok(()),
            _ => Err(found),
        }
    })
    .await;
    drop(worker);
}
