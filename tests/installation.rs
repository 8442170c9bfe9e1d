//! The identity of an installation: what starts, what waits, what refuses to start, and that nothing is deleted in the
//! meantime.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use crate::support::{
    Installation, Process, TestApp,
    app::{SOON, json, problem},
    installation::BUCKET,
    process::command,
};
use futures::TryStreamExt;
use landfall_core::{
    db::Database,
    installation::{self, MarkedLocation},
    sweep,
};
use landfall_test_servers::{S3Server, wait_until};
use sea_orm::{ConnectionTrait, EntityTrait};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

const MARKER: &str = ".landfall-installation";
/// Timeout for a process to refuse to start.
const WITHIN: Duration = Duration::from_secs(40);

/// Returns the error of a process that refuses to start.
async fn refusal(arguments: &[&str], installation: &Installation) -> String {
    let mut command = command(arguments, &installation.environment());
    let output = tokio::time::timeout(WITHIN, command.kill_on_drop(true).output()).await;
    let output = output.expect("it ends in time").expect("landfall starts");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

async fn done(arguments: &[&str], installation: &Installation) -> String {
    let output = command(arguments, &installation.environment())
        .output()
        .await;
    let output = output.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Replaces the folder with an empty one, as if its volume were unmounted; returns the path of the full one.
fn unmount(folder: &Path) -> PathBuf {
    let away = folder.with_extension("away");
    std::fs::rename(folder, &away).unwrap();
    std::fs::create_dir(folder).unwrap();
    away
}

fn mount(folder: &Path, away: &Path) {
    std::fs::remove_dir_all(folder).unwrap();
    std::fs::rename(away, folder).unwrap();
}

async fn readiness(app: &TestApp, check: &str, status: &str) -> Value {
    wait_until(SOON, async || {
        let response = app.get("/readyz").send().await.unwrap();
        let report: Value = response.json().await.unwrap();
        match report["checks"][check]["status"] == status {
            true => Ok(report),
            false => Err(report.to_string()),
        }
    })
    .await
}

/// The names of the file's bytes in a staging folder.
fn staged_files(staging: &Path, file: &Value) -> Vec<String> {
    let id = file["id"].as_str().unwrap();
    let names = std::fs::read_dir(staging).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(id)).collect()
}

fn folders(app: &TestApp) -> [PathBuf; 2] {
    let config = &app.parts.app.config;
    [config.staging.path.clone(), config.storage.path.clone()]
}

#[tokio::test(flavor = "multi_thread")]
async fn first_start_writes_both_markers_and_later_starts_find_them() {
    let app = TestApp::builder().workers(&[]).start().await;
    let [staging, storage] =
        folders(&app).map(|folder| std::fs::read(folder.join(MARKER)).unwrap());
    assert_eq!(staging, storage);
    app.upload("a.txt", "a").await;
    let installation = app.stop().await;
    let mut again = Process::listening(&["up"], &installation.environment()).await;
    assert!(again.terminate().await.success());
    let said = done(&["check"], &installation).await;
    let id = String::from_utf8(staging).unwrap();
    let id = id.lines().next().unwrap();
    assert!(said.contains(id), "{said}");
    let said = done(&["adopt"], &installation).await;
    assert!(said.contains("nothing to adopt"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn bucket_carries_a_marker_that_no_list_shows() {
    let s3 = S3Server::start().await;
    let app = TestApp::builder()
        .s3(&s3)
        .set("staging.backend", "s3")
        .postgres();
    let app = app.start().await;
    assert!(
        s3.root()
            .join(BUCKET)
            .join("landfall-installation")
            .exists()
    );
    let file = app.upload("a.txt", "a").await;
    assert_eq!(app.settled(&file["id"]).await["status"], "stored");
    for place in MarkedLocation::ALL {
        let visible = installation::marker_visible(&app.parts.app, place).await;
        assert!(visible.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn database_of_another_installation_does_not_start_until_it_is_adopted() {
    let app = TestApp::builder().workers(&[]).start().await;
    let file = app.upload("kept.txt", "kept").await;
    let [staging, _] = folders(&app);
    let mut installation = app.stop().await;
    let staged = staged_files(&staging, &file);
    assert_eq!(staged.len(), 1);
    let other = installation.folder().join("other.db").display().to_string();
    installation.set("database.url", &format!("sqlite://{other}"));
    for arguments in [&["up"][..], &["migrate", "up"]] {
        match arguments {
            ["up"] => {
                let said = refusal(arguments, &installation).await;
                for named in ["another installation", "landfall adopt", "database.url"] {
                    assert!(said.contains(named), "{named}: {said}");
                }
            }
            _ => drop(done(arguments, &installation).await),
        }
    }
    for arguments in [&["sweep"][..], &["serve"], &["worker"]] {
        let said = refusal(arguments, &installation).await;
        assert!(said.contains("landfall adopt"), "{arguments:?}: {said}");
    }
    let said = command(&["check"], &installation.environment())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("FAILED  installation: "), "{said}");
    let said = refusal(&["adopt"], &installation).await;
    assert!(said.contains("--yes"), "{said}");
    done(&["adopt", "--yes"], &installation).await;
    let mut adopted = Process::listening(&["up"], &installation.environment()).await;
    assert!(adopted.terminate().await.success());
    let left = staged_files(&staging, &file);
    assert_eq!(left, staged, "what was staged was not touched");
}

#[tokio::test(flavor = "multi_thread")]
async fn start_over_an_empty_staging_folder_waits_and_loses_nothing() {
    let app = TestApp::builder().workers(&[]).start().await;
    let file = app.upload("waits.txt", "waits").await;
    let id = file["id"].as_str().unwrap().to_owned();
    let [staging, _] = folders(&app);
    let installation = app.stop().await;
    let away = unmount(&staging);

    let mut up = Process::listening(&["serve"], &installation.environment()).await;
    let client = reqwest::Client::new();
    let ready = client
        .get(format!("{}/readyz", up.url))
        .send()
        .await
        .unwrap();
    let ready = json(ready, 503).await;
    assert_eq!(ready["checks"]["staging"]["status"], "down", "{ready}");
    let detail = ready["checks"]["staging"]["detail"].as_str().unwrap();
    assert!(detail.contains("marker is missing"), "{detail}");
    assert!(detail.contains("landfall adopt"), "{detail}");
    let upload = client
        .post(format!("{}/v1/files?filename=b", up.url))
        .body("b");
    problem(upload.send().await.unwrap(), 503, "unavailable").await;
    assert!(!staging.join(MARKER).exists(), "no marker is made up");
    assert!(up.terminate().await.success());
    let said = command(&["check"], &installation.environment())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("FAILED  installation: staging: "), "{said}");
    let mut sweep = command(&["sweep"], &installation.environment());
    sweep.output().await.unwrap();

    mount(&staging, &away);
    let mut up = Process::listening(&["up"], &installation.environment()).await;
    let status = wait_until(SOON, async || {
        let file = client.get(format!("{}/v1/files/{id}", up.url)).send().await;
        let file = json(file.unwrap(), 200).await;
        match file["status"].as_str().unwrap() {
            "stored" | "failed" => Ok(file["status"].clone()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    assert_eq!(status, "stored");
    assert!(up.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn unmounted_folders_reject_bytes_and_recover_when_mounted() {
    let app = TestApp::builder().workers(&[]).start().await;
    let landfall = &app.parts.app;
    app.upload("kept.txt", "kept").await;
    let pages: Vec<_> = landfall.staging.list().try_collect().await.unwrap();
    let key = pages.concat()[0].key;
    for folder in folders(&app) {
        let check = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let away = unmount(&folder);
        readiness(
            &app,
            &check,
            if check == "staging" {
                "down"
            } else {
                "degraded"
            },
        )
        .await;
        if check == "staging" {
            let response = app.post("/v1/files").query(&[("filename", "lost.txt")]);
            problem(
                response.body("lost").send().await.unwrap(),
                503,
                "unavailable",
            )
            .await;
            landfall.staging.delete(&[key]).await.unwrap_err();
        }
        let grace = landfall.config.staging.grace;
        landfall.clock.advance(grace + Duration::from_secs(60));
        let report = sweep::sweep(landfall).await.unwrap();
        assert_eq!(report.staging_removed, 0, "{report:?}");
        mount(&folder, &away);
        readiness(&app, &check, "ok").await;
    }
    assert_eq!(landfall.staging.len(key).await.unwrap(), Some(4));
    app.upload("later.txt", "later").await;
    let rows = entity::file::Entity::find().all(landfall.db.read()).await;
    assert_eq!(rows.unwrap().len(), 2, "what was refused has no row");
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_with_another_bucket_does_not_start() {
    let s3 = S3Server::start().await;
    let app = TestApp::builder().s3(&s3).workers(&[]).start().await;
    let file = app.upload("a.txt", "a").await;
    let mut installation = app.stop().await;
    s3.create_bucket("another");
    installation.set_raw("AWS_STORAGE_BUCKET_NAME", "another");
    let said = refusal(&["worker"], &installation).await;
    for named in ["storage", "marker is missing", "landfall adopt"] {
        assert!(said.contains(named), "{named}: {said}");
    }
    let there = std::fs::read_dir(s3.root().join("another"))
        .unwrap()
        .count();
    assert_eq!(there, 0, "nothing is stored there: {file}");
}

async fn forget_identity(installation: &Installation) {
    let url = installation.config().database.url;
    let db = Database::open(&url, 1).await.unwrap();
    let forget = "DELETE FROM installation";
    db.read().execute_unprepared(forget).await.unwrap();
    db.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn earlier_installation_is_marked_once_and_only_beside_its_bytes() {
    let app = TestApp::start().await;
    let stored = app.upload("stored.txt", "stored").await;
    assert_eq!(app.settled(&stored["id"]).await["status"], "stored");
    let [staging, storage] = folders(&app);
    let installation = app.stop().await;
    forget_identity(&installation).await;
    for folder in [&staging, &storage] {
        std::fs::remove_file(folder.join(MARKER)).unwrap();
    }
    // The volume of storage is not there while the first process of this version starts.
    let away = unmount(&storage);
    let mut up = Process::listening(&["up"], &installation.environment()).await;
    assert!(!storage.join(MARKER).exists());
    assert!(up.terminate().await.success());
    mount(&storage, &away);
    let mut up = Process::listening(&["up"], &installation.environment()).await;
    assert!(storage.join(MARKER).exists() && staging.join(MARKER).exists());
    assert!(up.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_of_a_database_gets_its_own_id() {
    let app = TestApp::builder().workers(&[]).start().await;
    let [staging, _] = folders(&app);
    let before = std::fs::read_to_string(staging.join(MARKER)).unwrap();
    let installation = app.stop().await;
    done(&["adopt", "--new-id", "--yes"], &installation).await;
    let after = std::fs::read_to_string(staging.join(MARKER)).unwrap();
    assert_ne!(before, after);
    let mut up = Process::listening(&["up"], &installation.environment()).await;
    assert!(up.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn full_staging_does_not_prevent_the_start_and_workers_free_space() {
    let app = TestApp::builder().workers(&[]).start().await;
    let file = app.upload("large.bin", vec![7; 300 * 1024]).await;
    let id = file["id"].as_str().unwrap().to_owned();
    let mut installation = app.stop().await;
    installation.set("staging.quota", "100KiB");
    let mut serve = Process::listening(&["serve"], &installation.environment()).await;
    let client = reqwest::Client::new();
    let ready = client
        .get(format!("{}/readyz", serve.url))
        .send()
        .await
        .unwrap();
    let ready = json(ready, 200).await;
    let detail = ready["checks"]["staging"]["detail"].as_str().unwrap();
    assert_eq!(ready["checks"]["staging"]["status"], "degraded", "{ready}");
    for named in ["staging.quota", "100.0 KiB", "worker", "raise"] {
        assert!(detail.contains(named), "{named}: {detail}");
    }
    let upload = client
        .post(format!("{}/v1/files?filename=b", serve.url))
        .body("b");
    problem(upload.send().await.unwrap(), 507, "staging_full").await;
    let mut worker = Process::spawn(&["worker"], &installation.environment());
    wait_until(SOON, async || {
        let file = client
            .get(format!("{}/v1/files/{id}", serve.url))
            .send()
            .await;
        let file = json(file.unwrap(), 200).await;
        (file["status"] == "stored")
            .then_some(())
            .ok_or(file.to_string())
    })
    .await;
    assert!(worker.terminate().await.success());
    assert!(serve.terminate().await.success());
}
