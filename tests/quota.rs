//! `uploads.owner_quota`: what counts, what is rejected, and what frees space.

use crate::support::{
    TestApp,
    app::{json, problem},
};
use base64::Engine;
use landfall_core::{
    quota,
    tokens::{self, TokenScope},
};
use landfall_test_servers::wait_until;
use reqwest::{Method, RequestBuilder, Response};
use secrecy::ExposeSecret;
use serde_json::Value;
use std::{
    collections::HashMap,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

const QUOTA: usize = 1000;

struct Owner<'a> {
    app: &'a TestApp,
    name: &'static str,
    token: String,
}

async fn start(postgres: bool) -> TestApp {
    let mut builder = TestApp::builder();
    if postgres {
        builder = builder.postgres();
    }
    builder
        .set("auth.mode", "tokens")
        .set("uploads.owner_quota", "1000")
        .start()
        .await
}

impl<'a> Owner<'a> {
    async fn new(app: &'a TestApp, name: &'static str) -> Self {
        let landfall = &app.parts.app;
        let scopes = [TokenScope::Upload, TokenScope::Read];
        let made = tokens::create(&landfall.db, &landfall.clock, name, &scopes, None).await;
        let token = made.expect("a token").1.expose_secret().to_owned();
        Self { app, name, token }
    }

    fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let request = self.app.request(method, path).bearer_auth(&self.token);
        match path.starts_with("/v1/tus") {
            true => request.header("Tus-Resumable", "1.0.0"),
            false => request,
        }
    }

    async fn send(&self, size: usize) -> Response {
        let request = self.request("POST", "/v1/files?filename=a");
        request
            .body(vec![b'x'; size])
            .send()
            .await
            .expect("a response")
    }

    async fn begin(&self, size: usize) -> Response {
        let body = serde_json::json!({ "original_filename": "a", "total_size_bytes": size });
        let request = self.request("POST", "/v1/uploads").json(&body);
        request.send().await.expect("a response")
    }

    async fn tus(&self, headers: &[(&str, String)]) -> Response {
        let mut request = self.request("POST", "/v1/tus");
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        request.send().await.expect("a response")
    }

    async fn patch(&self, path: &str, size: usize, length: Option<usize>) -> Response {
        let mut request = self
            .request("PATCH", path)
            .header("Upload-Offset", 0)
            .header("Content-Type", "application/offset+octet-stream");
        if let Some(length) = length {
            request = request.header("Upload-Length", length);
        }
        request
            .body(vec![b'x'; size])
            .send()
            .await
            .expect("a response")
    }

    async fn delete(&self, path: &str) {
        let response = self.request("DELETE", path).send().await;
        assert_eq!(response.expect("a response").status(), 204, "{path}");
    }

    async fn settled(&self, id: &Value) -> Value {
        let path = format!("/v1/files/{}", id.as_str().expect("an id"));
        wait_until(Duration::from_secs(20), async || {
            let response = self.request("GET", &path).send().await.expect("a response");
            let file = json(response, 200).await;
            let status = file["status"].as_str().expect("a status");
            ["stored", "failed"].contains(&status).then_some(file)
        })
        .await
    }

    async fn has(&self) -> u64 {
        let db = self.app.parts.app.db.read();
        // Its pool is shared with the requests of many clients.
        wait_until(Duration::from_secs(20), async || {
            quota::usage(db, self.name).await
        })
        .await
    }
}

fn path(response: &Response) -> String {
    let location = response.headers()["location"].to_str().expect("text");
    location.to_owned()
}

async fn whatever_way_it_comes_counts_until_it_is_gone(app: TestApp) {
    let (owner, other) = (Owner::new(&app, "one").await, Owner::new(&app, "two").await);
    let stored = json(owner.send(400).await, 202).await;
    owner.settled(&stored["id"]).await;
    assert_eq!(owner.has().await, 400, "what is stored still counts");

    let session = owner.begin(500).await;
    let session_path = path(&session);
    json(session, 201).await;
    assert_eq!(owner.has().await, 900, "what is to come counts");
    problem(owner.send(101).await, 413, "quota_exceeded").await;
    problem(owner.begin(101).await, 413, "quota_exceeded").await;
    let length = |size: usize| [("Upload-Length", size.to_string())];
    problem(owner.tus(&length(101)).await, 413, "quota_exceeded").await;
    assert_eq!(owner.has().await, 900, "what is refused does not count");
    json(other.send(QUOTA).await, 202).await;

    owner.delete(&session_path).await;
    assert_eq!(owner.has().await, 400, "what is aborted does not count");
    let tus = owner.tus(&length(600)).await;
    assert_eq!(
        tus.status(),
        201,
        "what is refused at 101 bytes is taken in when there is room"
    );
    assert_eq!(owner.has().await, 1000);
    owner.delete(&path(&tus)).await;
    owner
        .delete(&format!(
            "/v1/files/{}",
            stored["id"].as_str().expect("an id")
        ))
        .await;
    assert_eq!(owner.has().await, 0, "what is deleted does not count");
    let wrong = owner
        .request(
            "POST",
            &format!("/v1/files?filename=a&sha256={}", "0".repeat(64)),
        )
        .body("other bytes");
    problem(
        wrong.send().await.expect("a response"),
        422,
        "digest_mismatch",
    )
    .await;
    assert_eq!(owner.has().await, 0);
}

async fn deferred_lengths_and_joined_uploads_count_once(app: TestApp) {
    let owner = Owner::new(&app, "one").await;
    let deferred = [("Upload-Defer-Length", "1".to_owned())];
    let tus = path(&owner.tus(&deferred).await);
    assert_eq!(owner.has().await, 0);
    assert_eq!(
        owner.patch(&tus, 1001, None).await.status(),
        413,
        "it ends at the quota"
    );
    let tus = path(&owner.tus(&deferred).await);
    assert_eq!(owner.patch(&tus, 10, Some(1001)).await.status(), 413);
    assert_eq!(owner.patch(&tus, 10, Some(300)).await.status(), 204);
    assert_eq!(owner.has().await, 300, "from when the length is known");
    owner.delete(&tus).await;
    assert_eq!(owner.has().await, 0);

    let mut list = "final;".to_owned();
    for size in [300, 400] {
        let headers = [
            ("Upload-Length", size.to_string()),
            ("Upload-Concat", "partial".to_owned()),
        ];
        let partial = path(&owner.tus(&headers).await);
        assert_eq!(owner.patch(&partial, size, None).await.status(), 204);
        list = format!("{list}{partial} ");
    }
    assert_eq!(owner.has().await, 700);
    let joined = owner
        .tus(&[("Upload-Concat", list.trim().to_owned())])
        .await;
    assert_eq!(joined.status(), 201, "{joined:?}");
    let joined = path(&joined);
    assert_eq!(owner.has().await, 700, "joined they are the same bytes");
    let id = joined.rsplit('/').next().expect("an id");
    owner.settled(&Value::from(id)).await;
    owner.delete(&format!("/v1/files/{id}")).await;
    assert_eq!(owner.has().await, 0);

    let headers = [
        ("Upload-Length", "200".to_owned()),
        ("Upload-Concat", "partial".to_owned()),
    ];
    let alone = path(&owner.tus(&headers).await);
    assert_eq!(owner.has().await, 200);
    owner.delete(&alone).await;
    assert_eq!(owner.has().await, 0);
}

async fn failed_files_do_not_count(app: TestApp) {
    let owner = Owner::new(&app, "one").await;
    let body = serde_json::json!({
        "original_filename": "a", "total_size_bytes": 4, "sha256": "0".repeat(64),
    });
    let begun = owner
        .request("POST", "/v1/uploads")
        .json(&body)
        .send()
        .await;
    let session = path(&begun.expect("a response"));
    let part = owner
        .request("PUT", &format!("{session}/parts/1"))
        .body("abcd");
    json(part.send().await.expect("a response"), 200).await;
    let complete = owner
        .request("POST", &format!("{session}/complete"))
        .send()
        .await;
    let file = json(complete.expect("a response"), 202).await;
    let file = owner.settled(&file["id"]).await;
    assert_eq!(file["error"]["code"], "digest_mismatch");
    assert_eq!(owner.has().await, 0);
}

async fn uploads_at_once_are_counted_exactly(app: TestApp) {
    let owner = Owner::new(&app, "one").await;
    let sent = (0..40).map(|_| owner.send(20));
    for response in futures::future::join_all(sent).await {
        json(response, 202).await;
    }
    assert_eq!(owner.has().await, 800);
}

/// Lengths of files, in bytes. A file is identified by its inode and creation time, because inode numbers are reused; so
/// a file with two names counts once.
type FilesOnDisk = HashMap<(u64, SystemTime), u64>;

fn find_files(folder: &Path, found: &mut FilesOnDisk) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(file) if file.is_dir() => find_files(&entry.path(), found),
            Ok(file) => {
                let created = file.created().expect("the file system keeps it");
                found.insert((file.ino(), created), file.len());
            }
            // It was deleted in the meantime.
            Err(_) => {}
        }
    }
}

/// Returns the bytes that were in the folders at one moment. Files are created and deleted during a walk, so a single walk
/// may find more than ever existed at once. What two consecutive walks both find existed between them, with at least the
/// length that the first one found. Files are linked into storage here, so no byte is on disk twice.
fn bytes_at_once(folders: [&Path; 2]) -> u64 {
    let walk = || {
        let mut found = FilesOnDisk::new();
        for folder in folders {
            find_files(folder, &mut found);
        }
        found
    };
    let (first, second) = (walk(), walk());
    let stayed = first.iter().filter_map(|(file, length)| {
        let later = second.get(file)?;
        Some(length.min(later))
    });
    stayed.sum()
}

const FLOOD_QUOTA: u64 = 10 * 1024 * 1024;
const CLIENTS: usize = 200;
const SENT: usize = 60_000;

/// A flood takes seconds; one that does not end has a writer that waits forever.
const FLOOD_WITHIN: Duration = Duration::from_secs(300);

/// One of many uploads, by one of the protocols; the result does not matter.
async fn one_of_many(app: &TestApp, token: &str, number: usize) {
    let request = |method: &str, path: &str| {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let request = app.request(method, path).bearer_auth(token);
        match path.starts_with("/v1/tus") {
            true => request.header("Tus-Resumable", "1.0.0"),
            false => request,
        }
    };
    let bytes = || vec![b'x'; SENT];
    let unsized_body = || {
        let pieces = vec![bytes::Bytes::from(vec![b'x'; SENT / 8]); 8];
        let pieces = pieces.into_iter().map(Ok::<_, std::io::Error>);
        reqwest::Body::wrap_stream(futures::stream::iter(pieces))
    };
    let tus = async |header: (&str, String), more: &[(&str, &str)]| {
        let mut begin = request("POST", "/v1/tus").header(header.0, header.1);
        for (name, value) in more {
            begin = begin.header(*name, *value);
        }
        let begun = begin.send().await.ok()?;
        (begun.status() == 201).then(|| path(&begun))
    };
    let append = |path: &str| {
        request("PATCH", path)
            .header("Upload-Offset", 0)
            .header("Content-Type", "application/offset+octet-stream")
    };
    let sent = match number % 6 {
        0 => {
            request("POST", "/v1/files?filename=a")
                .body(bytes())
                .send()
                .await
        }
        1 => {
            request("POST", "/v1/files?filename=a")
                .body(unsized_body())
                .send()
                .await
        }
        2 => {
            let part = reqwest::multipart::Part::stream(unsized_body()).file_name("a");
            let form = reqwest::multipart::Form::new().part("file", part);
            request("POST", "/v1/files").multipart(form).send().await
        }
        3 => {
            let body = serde_json::json!({ "original_filename": "a", "total_size_bytes": SENT });
            let begun = request("POST", "/v1/uploads").json(&body).send().await;
            let Some(begun) = begun.ok().filter(|begun| begun.status() == 201) else {
                return;
            };
            let part = format!("{}/parts/1", path(&begun));
            request("PUT", &part).body(bytes()).send().await
        }
        4 => {
            let Some(path) = tus(("Upload-Length", SENT.to_string()), &[]).await else {
                return;
            };
            append(&path).body(bytes()).send().await
        }
        _ => {
            let partial = [("Upload-Concat", "partial")];
            let more = if number.is_multiple_of(4) {
                &partial[..]
            } else {
                &[]
            };
            let Some(path) = tus(("Upload-Defer-Length", "1".to_owned()), more).await else {
                return;
            };
            append(&path).body(unsized_body()).send().await
        }
    };
    if let Ok(response) = sent {
        let status = response.status().as_u16();
        assert!(
            // A client that the database was too busy for may retry.
            [200, 201, 202, 204, 413, 503].contains(&status),
            "{status} for {number}"
        );
    }
}

/// `LANDFALL_TEST_CLIENTS` clients; a thousand take minutes in a debug build.
fn clients() -> usize {
    let wanted = std::env::var("LANDFALL_TEST_CLIENTS").ok();
    wanted.map_or(CLIENTS, |wanted| wanted.parse().expect("a number"))
}

async fn many_clients_stay_within_the_quota(app: TestApp) {
    let owner = Owner::new(&app, "one").await;
    let config = Arc::clone(&app.parts.app.config);
    let measure = || bytes_at_once([&config.staging.path, &config.storage.path]);
    // The installation's, not the owner's.
    let markers = measure();
    let all = futures::future::join_all(
        (0..clients()).map(|number| one_of_many(&app, &owner.token, number)),
    );
    let mut all = std::pin::pin!(tokio::time::timeout(FLOOD_WITHIN, all));
    let mut most = 0;
    loop {
        tokio::select! {
            over = &mut all => {
                over.expect("every client is answered");
                break;
            }
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
        most = most.max(owner.has().await);
        assert!(most <= FLOOD_QUOTA, "{most} bytes are counted");
        let on_disk = measure() - markers;
        assert!(on_disk <= FLOOD_QUOTA, "{on_disk} bytes are on disk");
    }
    let on_disk = measure() - markers;
    assert!(on_disk <= FLOOD_QUOTA, "{on_disk} bytes are on disk");
    assert!(most > FLOOD_QUOTA / 2, "the quota was used: {most} bytes");
    // Unused reservations are released.
    wait_until(Duration::from_secs(60), async || {
        let more = usize::try_from(FLOOD_QUOTA - owner.has().await).expect("it fits");
        if more == 0 {
            // The flood filled it to the last byte.
            return Some(());
        }
        match owner.send(more.min(SENT)).await.status().as_u16() {
            202 => Some(()),
            _ => None,
        }
    })
    .await;
}

async fn start_flooded(postgres: bool) -> TestApp {
    let builder = TestApp::builder();
    let builder = if postgres {
        builder.postgres()
    } else {
        builder
    };
    builder
        .set("auth.mode", "tokens")
        .set("uploads.owner_quota", "10MiB")
        .start()
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_stay_within_the_quota_on_sqlite() {
    many_clients_stay_within_the_quota(start_flooded(false).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_stay_within_the_quota_on_postgres() {
    many_clients_stay_within_the_quota(start_flooded(true).await).await;
}

async fn metadata_counts_until_its_file_is_gone(app: TestApp) {
    let owner = Owner::new(&app, "one").await;
    let metadata = serde_json::json!({ "note": "x".repeat(200) });
    let request = owner
        .request("POST", "/v1/files?filename=a")
        .query(&[("metadata", metadata.to_string())]);
    let file = json(request.body("12345").send().await.expect("a response"), 202).await;
    let weight = 5 + metadata.to_string().len() as u64;
    assert_eq!(owner.has().await, weight);
    let value = base64::engine::general_purpose::STANDARD.encode("x".repeat(200));
    let headers = |length: &str, concat: Option<&str>| {
        let mut headers = vec![
            ("Upload-Length", length.to_owned()),
            ("Upload-Metadata", format!("note {value}")),
        ];
        headers.extend(concat.map(|text| ("Upload-Concat", text.to_owned())));
        headers
    };
    let empty = owner.tus(&headers("0", None)).await;
    assert_eq!(empty.status(), 201);
    let with_empty = weight + metadata.to_string().len() as u64;
    assert_eq!(
        owner.has().await,
        with_empty,
        "an upload of no bytes has metadata"
    );
    let partial = owner.tus(&headers("1", Some("partial"))).await;
    let partial = path(&partial);
    assert!(owner.has().await > with_empty + 200);
    owner.delete(&partial).await;
    assert_eq!(owner.has().await, with_empty);
    owner.settled(&file["id"]).await;
    owner
        .delete(&format!(
            "/v1/files/{}",
            file["id"].as_str().expect("an id")
        ))
        .await;
    assert_eq!(owner.has().await, with_empty - weight);
    let long = format!("note {}", "A".repeat(16 * 1024));
    let long = owner
        .tus(&[("Upload-Length", "0".to_owned()), ("Upload-Metadata", long)])
        .await;
    problem(long, 400, "invalid_metadata").await;
}

macro_rules! on_both {
    ($($name:ident => $sqlite:ident, $postgres:ident;)+) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $sqlite() {
            $name(start(false).await).await;
        }

        #[tokio::test(flavor = "multi_thread")]
        async fn $postgres() {
            $name(start(true).await).await;
        }
    )+};
}

on_both! {
    metadata_counts_until_its_file_is_gone
        => metadata_counts_on_sqlite, metadata_counts_on_postgres;
    whatever_way_it_comes_counts_until_it_is_gone
        => every_way_counts_until_it_is_gone_on_sqlite, every_way_counts_until_it_is_gone_on_postgres;
    deferred_lengths_and_joined_uploads_count_once
        => odd_uploads_count_once_on_sqlite, odd_uploads_count_once_on_postgres;
    failed_files_do_not_count
        => failed_files_do_not_count_on_sqlite, failed_files_do_not_count_on_postgres;
    uploads_at_once_are_counted_exactly
        => uploads_at_once_are_counted_on_sqlite, uploads_at_once_are_counted_on_postgres;
}
