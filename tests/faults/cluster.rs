//! An installation of real processes, and a look inside it from the test.

use crate::support::{ClientLog, Installation, Invariants, Process};
use landfall::server::{ProcessParts, assemble, connect_redis};
use landfall_core::db::Database;
use landfall_test_servers::{Receiver, wait_until};
use reqwest::Client;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// Leases short enough for a test to wait for.
pub const LEASE: Duration = Duration::from_secs(3);

/// How long a file may take after a kill: a lease, the next look, and a slow machine.
pub const AFTER_A_KILL: Duration = Duration::from_secs(40);

/// An installation whose API and workers are processes of their own.
#[derive(Debug)]
pub struct Cluster {
    pub installation: Installation,
    pub parts: ProcessParts,
    pub receiver: Receiver,
    pub client: Client,
    pub api: Process,
    pub log: ClientLog,
}

impl Cluster {
    /// Starts the API; [`Cluster::worker`] adds workers.
    pub async fn start(mut installation: Installation) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        installation.set("workers.lease", "3s");
        installation.set("sweep.interval", "1s");
        let config = installation.config();
        let db = Database::open(&config.database.url, 2)
            .await
            .expect("a database");
        db.migrate_up().await.expect("migrations");
        let api = Process::listening(&["serve"], &installation.environment()).await;
        let redis = connect_redis(&config, None).expect("a Redis URL");
        let parts = assemble(Arc::new(config), redis, api.url.parse().expect("a URL"))
            .await
            .expect("all parts");
        Self {
            installation,
            parts,
            receiver: Receiver::start().await,
            client: Client::new(),
            api,
            log: ClientLog::default(),
        }
    }

    /// A worker on all queues; with `failpoint` it ends or freezes itself there.
    pub fn worker(&self, failpoint: Option<&str>) -> Process {
        let mut environment = self.installation.environment();
        if let Some(failpoint) = failpoint {
            environment.push(("LANDFALL_FAILPOINT".to_owned(), failpoint.to_owned()));
        }
        Process::spawn(&["worker"], &environment)
    }

    /// Subscribes the receiver's `/hook` to all events.
    pub async fn webhook(&self) {
        let body = json!({ "url": self.receiver.url("/hook") });
        let response = self
            .client
            .post(format!("{}/v1/webhooks", self.api.url))
            .json(&body)
            .send()
            .await;
        assert_eq!(response.expect("a response").status(), 201);
    }

    /// Uploads by the first API, and notes it in the client's log.
    pub async fn upload(&self, name: &str, bytes: Vec<u8>) -> String {
        self.upload_at(&self.api.url, name, bytes).await
    }

    /// As [`Cluster::upload`], by an API of one's choice.
    pub async fn upload_at(&self, url: &str, name: &str, bytes: Vec<u8>) -> String {
        let uploaded = self.try_upload_at(url, name, bytes).await;
        uploaded.expect("a response")
    }

    /// Like [`Cluster::upload_at`]; `None` if the connection was lost before the response.
    pub async fn try_upload_at(&self, url: &str, name: &str, bytes: Vec<u8>) -> Option<String> {
        let request = self.client.post(format!("{url}/v1/files"));
        let request = request.query(&[("filename", name)]).body(bytes.clone());
        let response = request.send().await.ok()?;
        let status = response.status();
        let text = response.text().await.ok()?;
        assert_eq!(status, 202, "{text}");
        let file: Value = serde_json::from_str(&text).expect("a File");
        let id = file["id"].as_str().expect("an id").to_owned();
        self.log.acknowledged(&id, &bytes);
        Some(id)
    }

    pub async fn file(&self, id: &str) -> Value {
        let response = self
            .client
            .get(format!("{}/v1/files/{id}", self.api.url))
            .send()
            .await
            .expect("a response");
        response.json().await.expect("a File")
    }

    pub async fn status(&self, id: &str) -> String {
        let file = self.file(id).await;
        file["status"].as_str().expect("a status").to_owned()
    }

    pub async fn wait_for(&self, id: &str, status: &str, within: Duration) {
        wait_until(within, async || {
            let found = self.status(id).await;
            if found == status { Ok(()) } else { Err(found) }
        })
        .await;
    }

    /// The invariants of what [`Cluster::upload`] sent and what was added to the log.
    pub fn invariants(&self) -> Invariants<'_> {
        let landfall = &self.parts.app;
        let bytes_on_disk = self.installation.bytes_on_disk(landfall);
        Invariants::new(landfall, bytes_on_disk, &self.log, &self.receiver)
    }

    /// All invariants after so many faults of the surroundings: no file may have failed.
    pub async fn check(&self, faults: usize) {
        self.invariants().after(faults).hold().await;
    }
}
