//! S3-compatible stores that lack something, and installations that share a bucket or folder by `storage.prefix`.

use crate::support::{Installation, TestApp, app::SOON, installation::BUCKET, process::command};
use bytes::Bytes;
use landfall_core::storage::StorageKey;
use landfall_test_servers::{S3Operation, S3Quirk, S3Server, wait_until};
use serde_json::Value;

const MIB: usize = 1024 * 1024;

/// Runs a command, and returns its exit status and its output.
async fn run(installation: &Installation, arguments: &[&str]) -> (i32, String, String) {
    let output = command(arguments, &installation.environment())
        .output()
        .await
        .expect("landfall starts");
    (
        output.status.code().expect("it ends by itself"),
        String::from_utf8(output.stdout).expect("text"),
        String::from_utf8(output.stderr).expect("text"),
    )
}

async fn store(app: &TestApp, name: &str, size: usize) {
    let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
    let file = app.upload(name, bytes).await;
    let file = app.settled(&file["id"]).await;
    assert_eq!(file["status"], "stored", "{file}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_stored_at_a_provider_that_lacks_everything_it_may_lack() {
    let s3 = S3Server::start().await;
    for quirk in [
        S3Quirk::NoPartCopy,
        S3Quirk::PartChecksumRequired,
        S3Quirk::ListingForbidden,
        S3Quirk::NoChecksumHeader,
        S3Quirk::IgnoredConditions,
    ] {
        s3.imitate(quirk);
    }
    let builder = TestApp::builder().s3(&s3);
    let app = builder.set("staging.backend", "s3").start().await;
    s3.plant_folder_marker(BUCKET, "uploads/2026/11/");
    store(&app, "small.bin", 1000).await;
    store(&app, "large.bin", 20 * MIB).await;
    app.sweep().await;
    app.invariants().after(0).hold().await;
    assert!(s3.calls(S3Operation::UploadPartCopy) <= 8);

    let (status, told, errors) = run(&app.installation, &["check", "--json"]).await;
    assert_eq!(status, 0, "{told} {errors}");
    let checks: Vec<Value> = serde_json::from_str(&told).expect("a list");
    let storage = checks.iter().find(|check| check["name"] == "storage");
    let storage = storage.expect("storage is checked");
    let supported: Vec<&str> = storage["capabilities"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| one["support"].as_str().expect("text"))
        .collect();
    assert_eq!(
        supported,
        ["no", "no", "no", "no", "yes", "no"],
        "{storage}"
    );
    let detail = storage["detail"].as_str().expect("text");
    assert!(detail.contains("s3:ListBucketMultipartUploads"), "{detail}");

    // What cannot be listed is no reason not to audit the rest, and a folder marker is nobody's file.
    let (status, told, errors) = run(&app.installation, &["audit", "--json"]).await;
    assert_eq!(status, 0, "{told} {errors}");
    assert!(errors.contains("ListMultipartUploads"), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_startup_check_leaves_is_swept() {
    let s3 = S3Server::start().await;
    let app = TestApp::builder().s3(&s3).workers(&[]).start().await;
    let (storage, clock) = (&app.parts.app.storage, &app.parts.app.clock);
    let _ = s3.leave_upload_open(BUCKET, "landfall-probe-1");
    let object: StorageKey = "landfall-probe-2".parse().expect("a key");
    let put = storage.put_bytes(&object, Bytes::from_static(b"probe"), "text/plain");
    put.await.expect("an object");
    app.sweep().await;
    // They may belong to a process that is starting.
    assert_eq!(s3.open_multipart_uploads().len(), 1);
    clock.advance(2 * app.parts.app.config.staging.grace);
    app.sweep().await;
    assert!(s3.open_multipart_uploads().is_empty());
    let found = storage.head(&object).await.expect("an answer");
    assert_eq!(found, None);
}

/// Where a prefix is used: a folder, or a bucket with staging in it.
async fn prefixed(s3: Option<&S3Server>) -> TestApp {
    let mut builder = TestApp::builder().set("storage.prefix", "/team/files/");
    if let Some(s3) = s3 {
        builder = builder.s3(s3).set("staging.backend", "s3");
    }
    builder.set("workers.lease", "3s").start().await
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_below_the_prefix() {
    let s3 = S3Server::start().await;
    for server in [None, Some(&s3)] {
        let app = prefixed(server).await;
        store(&app, "small.txt", 100).await;
        store(&app, "large.bin", 20 * MIB).await;
        let (storage, clock) = (&app.parts.app.storage, &app.parts.app.clock);
        let folder = app.parts.app.config.storage.path.clone();
        let names = |below: &str| match server {
            Some(server) => server.keys(BUCKET),
            None => walk(&folder.join(below)),
        };
        // Two objects and the marker, once nothing is staged any more.
        let all = wait_until(SOON, async || {
            let all = names("");
            (all.len() == 3).then_some(all)
        })
        .await;
        assert!(
            all.iter().all(|name| name.starts_with("team/files/")),
            "{all:?}"
        );

        // An object of another installation, and one without a row.
        let foreign = match server {
            Some(server) => server.root().join(BUCKET).join("uploads/2026/01/other.txt"),
            None => folder.join("uploads/2026/01/other.txt"),
        };
        std::fs::create_dir_all(foreign.parent().expect("a folder")).expect("a folder");
        std::fs::write(&foreign, "another's").expect("a file");
        let orphan: StorageKey = "uploads/2026/01/orphan.txt".parse().expect("a key");
        let put = storage.put_bytes(&orphan, Bytes::from_static(b"nobody's"), "text/plain");
        put.await.expect("an object");
        clock.advance(3 * app.parts.app.config.workers.lease);
        let (status, told, _) = run(&app.installation, &["audit", "--json"]).await;
        let report: Value = serde_json::from_str(&told).expect("a report");
        let offenders = report["offenders"].as_array().expect("a list");
        assert_eq!((status, offenders.len()), (1, 1), "{report}");
        assert_eq!(offenders[0]["id"], orphan.as_str());
        storage.delete(&orphan).await.expect("no object");

        app.invariants().after(0).hold().await;
        assert!(foreign.exists());
        let installation = app.stop().await;
        let (status, _, errors) = run(&installation, &["adopt", "--yes"]).await;
        assert_eq!(status, 0, "{errors}");
        assert_eq!(run(&installation, &["check"]).await.0, 0);
    }
}

fn walk(root: &std::path::Path) -> Vec<String> {
    let (mut folders, mut names) = (vec![root.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let name = path.strip_prefix(root).expect("a path below");
                    names.push(name.display().to_string());
                }
            }
        }
    }
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_storage_settings_are_refused_with_the_allowed_ones() {
    for (key, wrong, allowed) in [
        ("storage.prefix", "../elsewhere", "names separated by `/`"),
        ("storage.prefix", "a//b", "names separated by `/`"),
        ("storage.prefix", "a\\b", "names separated by `/`"),
        (
            "storage.s3.addressing",
            "dns",
            "`auto`, `path` or `virtual`",
        ),
        ("storage.s3.addressing", "virtual", "needs a host name"),
        ("storage.s3.public_url", "files.example", "http"),
        (
            "storage.s3.public_url",
            "https://a.example/?b",
            "without a query",
        ),
        (
            "storage.s3.server_side_encryption",
            "aes",
            "`AES256` or `aws:kms`",
        ),
        ("storage.s3.kms_key_id", "alias/files", "aws:kms"),
        ("storage.s3.storage_class", "GLACIER", "`STANDARD_IA`"),
    ] {
        let s3 = S3Server::start().await;
        let mut installation = Installation::new();
        installation.store_in(&s3);
        installation.set(key, wrong);
        let (status, _, errors) = run(&installation, &["check"]).await;
        assert_eq!(status, 1, "{key}: {errors}");
        assert!(errors.contains(key) && errors.contains(allowed), "{errors}");
    }
}
