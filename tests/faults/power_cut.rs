//! A power cut loses what was not synced. Every acknowledged byte and row must survive.
//!
//! Each kind of sync is also left out, one at a time, and must be missed then: otherwise nothing here would show that
//! it is made.

use crate::support::{ClientLog, Installation, Process, app::json, process::command};
use landfall_core::digest::Sha256Digest;
use landfall_test_servers::{PowerCut, wait_until};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use std::time::Duration;

/// How long all files may take to be stored, from the start of a worker.
const STORED_WITHIN: Duration = Duration::from_secs(60);

/// Timeout for the rest to be stored, when something is lost.
const MISSED_WITHIN: Duration = Duration::from_secs(10);

/// Beyond the page cache: large uploads are written around it.
const LARGE: usize = 12 * 1024 * 1024;

const PART: usize = 64 * 1024;

fn bytes(size: usize, seed: usize) -> Vec<u8> {
    (0..size).map(|at| ((at * 31 + seed) % 251) as u8).collect()
}

/// A client, and all it knows.
struct Uploader {
    client: Client,
    url: String,
    log: ClientLog,
    count: usize,
}

impl Uploader {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        match path.starts_with("/v1/tus") {
            true => request.header("Tus-Resumable", "1.0.0"),
            false => request,
        }
    }

    fn bytes(&mut self, size: usize) -> Vec<u8> {
        self.count += 1;
        bytes(size, self.count)
    }

    async fn whole(&mut self, size: usize) {
        let bytes = self.bytes(size);
        let request = self.request(Method::POST, "/v1/files?filename=whole");
        let response = request.body(bytes.clone()).send().await;
        let file = json(response.expect("a response"), 202).await;
        self.log
            .acknowledged(file["id"].as_str().expect("an id"), &bytes);
    }

    async fn parts(&mut self) {
        let bytes = self.bytes(5 * PART + 7);
        let asked = json!({
            "original_filename": "parts", "total_size_bytes": bytes.len(), "chunk_size_bytes": PART,
        });
        let begun = self.request(Method::POST, "/v1/uploads").json(&asked);
        let begun = json(begun.send().await.expect("a response"), 201).await;
        let session = format!("/v1/uploads/{}", begun["id"].as_str().expect("an id"));
        let parts: Vec<&[u8]> = bytes.chunks(PART).collect();
        for (at, part) in parts.iter().enumerate().rev() {
            let put = self.request(Method::PUT, &format!("{session}/parts/{}", at + 1));
            let response = put.body(part.to_vec()).send().await.expect("a response");
            assert_eq!(response.status(), 200);
        }
        let complete = self.request(Method::POST, &format!("{session}/complete"));
        let file = json(complete.send().await.expect("a response"), 202).await;
        self.log
            .acknowledged(file["id"].as_str().expect("an id"), &bytes);
    }

    async fn begin(&self, headers: &[(&str, &str)]) -> String {
        let mut request = self.request(Method::POST, "/v1/tus");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.expect("a response");
        assert_eq!(response.status(), 201, "{response:?}");
        let location = response.headers()["location"].to_str().expect("text");
        location.to_owned()
    }

    async fn patch(&self, path: &str, offset: usize, bytes: &[u8]) {
        let response = self.send_piece(path, offset, bytes).await;
        assert_eq!(response.status(), 204, "{response:?}");
    }

    async fn send_piece(&self, path: &str, offset: usize, bytes: &[u8]) -> Response {
        let request = self.request(Method::PATCH, path);
        let request = request
            .header("Upload-Offset", offset)
            .header("Content-Type", "application/offset+octet-stream");
        let response = request.body(bytes.to_vec()).send().await;
        response.expect("a response")
    }

    /// By tus, in as many pieces as there are offsets.
    async fn tus(&mut self, size: usize, offsets: &[usize]) {
        let bytes = self.bytes(size);
        let path = self.begin(&[("Upload-Length", &size.to_string())]).await;
        let ends = offsets[1..].iter().chain([&size]);
        for (from, to) in offsets.iter().zip(ends) {
            self.patch(&path, *from, &bytes[*from..*to]).await;
        }
        self.log.acknowledged(id(&path), &bytes);
    }

    /// Partial uploads, joined.
    async fn joined(&mut self) {
        let bytes = self.bytes(90_000);
        let mut list = "final;".to_owned();
        for piece in bytes.chunks(30_000) {
            let headers = [("Upload-Length", "30000"), ("Upload-Concat", "partial")];
            let path = self.begin(&headers).await;
            self.patch(&path, 0, piece).await;
            list = format!("{list}{path} ");
        }
        let path = self.begin(&[("Upload-Concat", list.trim())]).await;
        self.log.acknowledged(id(&path), &bytes);
    }

    /// One upload by every protocol.
    async fn every_way(&mut self) {
        self.whole(1000).await;
        self.whole(LARGE).await;
        self.parts().await;
        self.tus(50_000, &[0]).await;
        self.tus(80_000, &[0, 20_000]).await;
        self.tus(LARGE, &[0, LARGE / 2 + 1]).await;
        self.joined().await;
    }

    async fn response(&self, path: &str) -> Response {
        let response = self.request(Method::GET, path).send().await;
        response.expect("a response")
    }

    async fn status(&self, id: &str) -> String {
        let response = self.response(&format!("/v1/files/{id}")).await;
        let status = response.status();
        let file: Value = response.json().await.expect("JSON");
        match file["status"].as_str() {
            Some(text) if status == 200 => text.to_owned(),
            _ => status.to_string(),
        }
    }

    async fn content(&self, id: &str) -> reqwest::Result<Vec<u8>> {
        let path = format!("/v1/files/{id}/content");
        let response = self.request(Method::GET, &path).send().await?;
        Ok(response.bytes().await?.to_vec())
    }

    async fn all_are_stored(&self) {
        for file in self.log.files() {
            wait_until(STORED_WITHIN, async || {
                let status = self.status(&file.id).await;
                match status == "stored" {
                    true => Ok(()),
                    false => Err(format!("{file:?} is {status}")),
                }
            })
            .await;
        }
    }

    /// Returns the uploads that are not stored, as they were sent, within this time.
    async fn lost(&self, within: Duration) -> Vec<String> {
        let until = tokio::time::Instant::now() + within;
        let mut lost = Vec::new();
        for file in self.log.files() {
            let mut status = self.status(&file.id).await;
            while ["uploading", "staged", "finalizing"].contains(&status.as_str())
                && tokio::time::Instant::now() < until
            {
                let path = format!("/v1/files/{}?wait=2", file.id);
                self.response(&path).await;
                status = self.status(&file.id).await;
            }
            if status != "stored" {
                lost.push(format!("{file:?} is {status}"));
                continue;
            }
            match self.content(&file.id).await {
                Ok(content) if Sha256Digest::compute(&content).to_string() == file.sha256 => {}
                Ok(content) => lost.push(format!("{file:?}: {} other bytes", content.len())),
                Err(error) => lost.push(format!("{file:?}: {error}")),
            }
        }
        lost
    }
}

fn id(path: &str) -> &str {
    path.rsplit('/').next().expect("an id")
}

/// Uploads that are stored, staged, and unfinished; then the power is cut. Returns which of them are lost.
async fn cut(unsynced: Option<(&str, &str)>, within: Duration) -> Vec<String> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut installation = Installation::new();
    installation.set("workers.lease", "3s");
    installation.set("sweep.interval", "1s");
    let power = PowerCut::new();
    let mut environment = installation.environment();
    environment.extend(power.environment());
    let migrated = command(&["migrate", "up"], &environment).output().await;
    let migrated = migrated.expect("landfall runs");
    assert!(migrated.status.success(), "{migrated:?}");
    // A first start with every sync, whose marker is not part of this test.
    let mut first = Process::listening(&["serve"], &environment).await;
    assert!(first.terminate().await.success());
    environment.extend(unsynced.map(|(kind, part)| PowerCut::unsynced(kind, part)));
    let mut api = Process::listening(&["serve"], &environment).await;
    let mut worker = Process::spawn(&["worker"], &environment);
    let mut uploader = Uploader {
        client: Client::new(),
        url: api.url.clone(),
        log: ClientLog::default(),
        count: 0,
    };
    uploader.every_way().await;
    uploader.all_are_stored().await;
    assert!(worker.terminate().await.success());
    uploader.every_way().await;
    let half = uploader.bytes(60_000);
    let open = uploader.begin(&[("Upload-Length", "60000")]).await;
    uploader.patch(&open, 0, &half[..40_000]).await;

    api.kill().await;
    power.cut(installation.folder());
    let environment = installation.environment();
    let mut migrate = command(&["migrate", "up"], &environment);
    let migrated = migrate.output().await.expect("landfall runs");
    if !migrated.status.success() {
        return vec![format!("the database: {migrated:?}")];
    }
    let api = Process::listening(&["serve"], &environment).await;
    let _worker = Process::spawn(&["worker"], &environment);
    uploader.url = api.url.clone();
    let mut lost = uploader.lost(within).await;
    let rest = uploader.send_piece(&open, 40_000, &half[40_000..]).await;
    match rest.status().as_u16() {
        204 => {
            uploader.log.acknowledged(id(&open), &half);
            lost.append(&mut uploader.lost(within).await);
        }
        _ => lost.push(format!("the upload that was open: {rest:?}")),
    }
    lost
}

#[tokio::test(flavor = "multi_thread")]
async fn power_cut_loses_nothing_that_was_acknowledged() {
    let lost = cut(None, STORED_WITHIN).await;
    assert!(lost.is_empty(), "lost: {lost:#?}");
}

async fn is_missed(kind: &str, part: &str) {
    let lost = cut(Some((kind, part)), MISSED_WITHIN).await;
    assert!(
        !lost.is_empty(),
        "nothing shows that each {kind} of {part} is synced"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_syncing_staged_files_bytes_are_lost() {
    is_missed("file", "/staging/").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_syncing_the_staging_folder_files_are_lost() {
    is_missed("folder", "/staging").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_syncing_objects_bytes_are_lost() {
    is_missed("file", "/storage/").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_syncing_the_folders_of_objects_files_are_lost() {
    is_missed("folder", "/storage").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_syncing_the_database_rows_are_lost() {
    is_missed("file", "landfall.db").await;
}
