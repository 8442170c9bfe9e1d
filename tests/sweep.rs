//! What the sweep deletes, and what it must not touch.

use crate::support::{
    TestApp,
    app::{SOON, json},
};
use landfall_core::{
    files,
    staging::{StagingKey, WriteOptions},
};
use reqwest::Method;
use sea_orm::{ConnectionTrait, EntityTrait, Statement};
use serde_json::json;
use std::time::Duration;

/// Longer than `staging.grace`, shorter than `workers.retry_for`.
const A_DAY_AND_A_HALF: Duration = Duration::from_secs(36 * 3600);

#[tokio::test(flavor = "multi_thread")]
async fn staged_file_that_waits_longer_than_the_grace_period_keeps_its_bytes() {
    let app = TestApp::builder().workers(&[]).start().await;
    let landfall = &app.parts.app;
    let mut keys = Vec::new();
    for key in [None, Some("kept")] {
        let mut request = app.post("/v1/files").query(&[("filename", "waits.txt")]);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let response = request.body("patience").send().await.unwrap();
        assert_eq!(response.status(), 202);
        let file: serde_json::Value = response.json().await.unwrap();
        let id: entity::FileId = file["id"].as_str().unwrap().parse().unwrap();
        let row = entity::file::Entity::find_by_id(id).one(landfall.db.read());
        let row = row.await.unwrap().unwrap();
        let pieces = files::staged_pieces(landfall.db.read(), &row)
            .await
            .unwrap();
        assert_eq!(pieces.len(), 1);
        keys.push(pieces[0].key);
    }
    landfall.clock.advance(A_DAY_AND_A_HALF);
    assert_eq!(app.sweep().await.staging_removed, 0);
    for key in keys {
        assert_eq!(landfall.staging.len(key).await.unwrap(), Some(8));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unlisted_staging_is_deleted_after_the_grace_period_and_not_before() {
    let app = TestApp::builder().workers(&[]).start().await;
    let landfall = &app.parts.app;
    let key = StagingKey::generate();
    let body = futures::stream::iter([Ok::<_, std::io::Error>(bytes::Bytes::from_static(
        b"nobody's",
    ))]);
    landfall
        .staging
        .write(key, body, WriteOptions::default())
        .await
        .unwrap();
    assert_eq!(app.sweep().await.staging_removed, 0);
    landfall.clock.advance(A_DAY_AND_A_HALF);
    assert_eq!(app.sweep().await.staging_removed, 1);
    assert_eq!(landfall.staging.len(key).await.unwrap(), None);
}

async fn told(app: &TestApp) -> Vec<serde_json::Value> {
    let of_event = |request: landfall_test_servers::Received| {
        serde_json::from_slice(&request.body).expect("an event")
    };
    app.receiver.requests().into_iter().map(of_event).collect()
}

async fn expiring_is_announced_once_and_ahead_of_deletion(app: TestApp) {
    app.webhook("/hook", &["file.expiring", "file.deleted"])
        .await;
    let keep = app.upload("kept.txt", "for ever").await;
    let response = app
        .post("/v1/files")
        .query(&[("filename", "leaves.txt"), ("expires_in", "3600")])
        .body("for an hour")
        .send()
        .await
        .expect("a response");
    let leaves = crate::support::app::json(response, 202).await;
    app.settled(&keep["id"]).await;
    let stored = app.settled(&leaves["id"]).await;
    assert_eq!(app.sweep().await.expiring_announced, 0, "not yet time");

    let clock = &app.parts.app.clock;
    clock.advance(Duration::from_secs(2900));
    let sweeps = tokio::join!(app.sweep(), app.sweep());
    let announced = sweeps.0.expiring_announced + sweeps.1.expiring_announced;
    assert_eq!(announced, 1, "two sweeps at once announce it once");
    assert_eq!(app.sweep().await.expiring_announced, 0);
    app.receiver.wait_for(1, SOON).await;
    let mut events = told(&app).await;
    assert_eq!(events[0]["type"], "file.expiring");
    // A signed URL is made afresh each time.
    let bare = |url: &serde_json::Value| {
        let url = url.as_str().expect("a URL");
        url.split('?').next().expect("a URL").to_owned()
    };
    events[0]["data"]["url"] = bare(&events[0]["data"]["url"]).into();
    assert_eq!(
        events[0]["data"],
        serde_json::json!({
            "file_id": leaves["id"],
            "original_filename": "leaves.txt",
            "content_type": stored["content_type"],
            "size_bytes": 11,
            "sha256": stored["sha256"],
            "url": bare(&stored["url"]),
            "expires_at": stored["expires_at"],
        })
    );

    clock.advance(Duration::from_secs(3700));
    let report = app.sweep().await;
    assert_eq!((report.expiring_announced, report.files_expired), (0, 1));
    app.receiver.wait_for(2, SOON).await;
    let deleted = told(&app).await.pop().expect("two events");
    assert_eq!(deleted["type"], "file.deleted");
    let mut data = deleted["data"].as_object().expect("a payload").clone();
    assert!(data.remove("deleted_at").expect("a moment").is_string());
    let mut expected = events[0]["data"].as_object().expect("a payload").clone();
    expected.remove("expires_at");
    expected.insert("url".to_owned(), serde_json::Value::Null);
    assert_eq!(data, expected);
    assert_eq!(app.settled(&keep["id"]).await["status"], "stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn expiring_is_announced_once_and_ahead_of_deletion_on_sqlite() {
    let app = TestApp::builder().set("files.expiring_notice", "15m");
    expiring_is_announced_once_and_ahead_of_deletion(app.start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn expiring_is_announced_once_and_ahead_of_deletion_on_postgres() {
    let app = TestApp::builder()
        .postgres()
        .set("files.expiring_notice", "15m");
    expiring_is_announced_once_and_ahead_of_deletion(app.start().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expiry_that_cannot_be_announced_does_not_block_others() {
    let app = TestApp::builder()
        .set("files.expiring_notice", "15m")
        .start()
        .await;
    let mut files = Vec::new();
    for name in ["first", "stuck", "last"] {
        let request = app
            .post("/v1/files")
            .query(&[("filename", name), ("expires_in", "600")]);
        let answer = request.body(name).send().await.unwrap();
        let file = crate::support::app::json(answer, 202).await;
        app.settled(&file["id"]).await;
        files.push(file);
    }
    // Not a key that Landfall generates.
    let broken = "UPDATE files SET storage_key = '../' WHERE original_filename = 'stuck'";
    let db = &app.parts.app.db;
    db.read().execute_unprepared(broken).await.unwrap();
    let report = app.sweep().await;
    assert_eq!(report.faults.len(), 1, "{report:?}");
    let left = "SELECT original_filename AS name FROM files WHERE expiring_announced_at IS NULL";
    let left = Statement::from_string(db.backend(), left);
    let left = db.read().query_all_raw(left).await.unwrap();
    let left: Vec<String> = left
        .iter()
        .map(|row| row.try_get("", "name").unwrap())
        .collect();
    assert_eq!(left, ["stuck"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn file_kept_for_less_than_the_notice_is_announced_by_the_next_sweep() {
    let app = TestApp::start().await;
    let request = app
        .post("/v1/files")
        .query(&[("filename", "brief.txt"), ("expires_in", "600")]);
    let response = request.body("brief").send().await.unwrap();
    let file = crate::support::app::json(response, 202).await;
    app.settled(&file["id"]).await;
    assert_eq!(app.sweep().await.expiring_announced, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn expiry_is_not_announced_where_no_notice_is_set() {
    let app = TestApp::builder()
        .set("files.expiring_notice", "")
        .start()
        .await;
    let request = app
        .post("/v1/files")
        .query(&[("filename", "brief.txt"), ("expires_in", "600")]);
    let response = request.body("brief").send().await.unwrap();
    let file = crate::support::app::json(response, 202).await;
    app.settled(&file["id"]).await;
    assert_eq!(app.sweep().await.expiring_announced, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_without_expires_in_are_kept_for_the_default_ttl() {
    let builder = TestApp::builder().set("files.default_ttl", "1h");
    let app = builder.set("files.expiring_notice", "").start().await;
    let whole = app.upload("whole.txt", "hello").await["id"].clone();
    let asked = json!({ "original_filename": "parts.txt", "total_size_bytes": 5 });
    let session = app.post("/v1/uploads").json(&asked).send().await.unwrap();
    let session = json(session, 201).await;
    let path = format!("/v1/uploads/{}", session["id"].as_str().unwrap());
    let part = app.request(Method::PUT, &format!("{path}/parts/1"));
    json(part.body("hello").send().await.unwrap(), 200).await;
    let complete = app.post(&format!("{path}/complete")).send().await.unwrap();
    let parts = json(complete, 202).await["id"].clone();
    let tus = app.post("/v1/tus").header("Tus-Resumable", "1.0.0");
    let tus = tus.header("Upload-Length", 5).body("hello");
    let tus = tus.header("Content-Type", "application/offset+octet-stream");
    let tus = tus.send().await.unwrap();
    let tus = tus.headers()["location"].to_str().unwrap();
    let tus = json!(tus.rsplit('/').next());
    let longer = app.post("/v1/files").body("hello");
    let longer = longer.query(&[("filename", "longer.txt"), ("expires_in", "7200")]);
    let longer = json(longer.send().await.unwrap(), 202).await["id"].clone();
    for id in [&whole, &parts, &tus, &longer] {
        assert_eq!(app.settled(id).await["status"], "stored");
    }
    assert_eq!(app.sweep().await.files_expired, 0);
    let clock = &app.parts.app.clock;
    clock.advance(Duration::from_secs(3601));
    assert_eq!(app.sweep().await.files_expired, 3);
    for id in [&whole, &parts, &tus] {
        assert_eq!(app.settled(id).await["status"], "deleted");
    }
    assert_eq!(app.settled(&longer).await["status"], "stored");
}
