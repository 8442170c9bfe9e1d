//! The whole main job, on every kind of database and storage: in over HTTP, staged, stored, announced, found again.

use crate::support::{
    Installation, Process, TestApp,
    app::{Builder, SOON, json},
    installation::BUCKET,
    process::command,
};
use landfall_core::digest::Sha256Digest;
use landfall_test_servers::{S3Server, wait_until};
use serde_json::{Value, json};
use std::{collections::BTreeSet, path::PathBuf};

const SIX_FIELDS: [&str; 6] = [
    "file_id",
    "original_filename",
    "content_type",
    "size_bytes",
    "sha256",
    "url",
];

/// The interpreter with boto3 and standardwebhooks, which scripts/test installs.
fn python() -> PathBuf {
    std::env::var_os("LANDFALL_TEST_PYTHON")
        .map(PathBuf::from)
        .expect("LANDFALL_TEST_PYTHON is not set: run scripts/test, which installs boto3 and standardwebhooks")
}

async fn judge(script: &str, input: &Value) -> Value {
    let mut command = tokio::process::Command::new(python());
    command
        .args(["-c", script, &input.to_string()])
        .env_remove("AWS_PROFILE");
    let output = command.output().await.expect("Python runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("the script prints JSON")
}

async fn journey(builder: Builder) {
    let app = builder.set("sweep.interval", "1s").start().await;
    let webhook = app.webhook("/hook", &["file.stored"]).await;
    let bytes = b"what goes ashore".repeat(20_000);
    let taken = app.upload("Bericht für März.txt", bytes.clone()).await;
    assert_eq!(taken["original_filename"], "Bericht für März.txt");
    let stored = app.settled(&taken["id"]).await;
    assert_eq!(stored["status"], "stored", "{stored}");
    assert_eq!(stored["sha256"], Sha256Digest::compute(&bytes).to_string());
    assert_eq!(stored["size_bytes"], bytes.len());

    let fetched = fetch(&app, stored["url"].as_str().expect("a URL")).await;
    assert_eq!(fetched, bytes, "the bytes come back");

    let request = app.receiver.wait_for(1, SOON).await.remove(0);
    let body: Value = serde_json::from_slice(&request.body).expect("JSON");
    assert_eq!(body["type"], "file.stored");
    let fields: BTreeSet<&str> = body["data"]
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(fields, BTreeSet::from(SIX_FIELDS));
    assert_eq!(body["data"]["file_id"], taken["id"]);
    assert_eq!(body["data"]["sha256"], stored["sha256"]);
    verify_with_standardwebhooks(&webhook["secret"], &request).await;

    app.invariants().hold().await;
}

async fn fetch(app: &TestApp, url: &str) -> Vec<u8> {
    let response = app.client.get(url).send().await.expect("a response");
    assert_eq!(response.status(), 200);
    response.bytes().await.expect("a body").to_vec()
}

/// By the public library, as a receiver would.
async fn verify_with_standardwebhooks(secret: &Value, request: &landfall_test_servers::Received) {
    let input = json!({
        "secret": secret,
        "body": String::from_utf8(request.body.to_vec()).expect("UTF-8"),
        "headers": {
            "webhook-id": request.header("webhook-id"),
            "webhook-timestamp": request.header("webhook-timestamp"),
            "webhook-signature": request.header("webhook-signature"),
        },
    });
    let script = "
import json, sys
from standardwebhooks import Webhook
given = json.loads(sys.argv[1])
print(json.dumps(Webhook(given['secret']).verify(given['body'], given['headers'])['type']))
";
    assert_eq!(judge(script, &input).await, "file.stored");
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs Python: scripts/test runs it"
)]
async fn file_is_stored_and_announced_on_sqlite_and_folders() {
    journey(TestApp::builder()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL and Python: scripts/test runs it"
)]
async fn file_is_stored_and_announced_on_postgres_and_folders() {
    journey(TestApp::builder().postgres()).await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL and Python: scripts/test runs it"
)]
async fn file_is_stored_and_announced_on_postgres_and_s3() {
    let s3 = S3Server::start().await;
    journey(TestApp::builder().postgres().s3(&s3)).await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL and Python: scripts/test runs it"
)]
async fn file_is_stored_and_announced_with_staging_in_the_bucket() {
    let s3 = S3Server::start().await;
    journey(
        TestApp::builder()
            .postgres()
            .s3(&s3)
            .set("staging.backend", "s3"),
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs Python: scripts/test runs it"
)]
async fn boto3_reads_what_was_stored_and_two_files_of_one_name_have_two_keys() {
    let s3 = S3Server::start().await;
    let app = TestApp::builder().s3(&s3).start().await;
    for content in ["first", "second"] {
        let file = app.upload("same name.txt", content).await;
        assert_eq!(app.settled(&file["id"]).await["status"], "stored");
    }
    let script = "
import boto3, json, sys
given = json.loads(sys.argv[1])
client = boto3.client('s3', endpoint_url=given['endpoint'], region_name='us-east-1',
    aws_access_key_id=given['key'], aws_secret_access_key=given['secret'])
found = {}
for item in client.list_objects_v2(Bucket=given['bucket'], Prefix='uploads/')['Contents']:
    found[item['Key']] = client.get_object(Bucket=given['bucket'], Key=item['Key'])['Body'].read().decode()
print(json.dumps(found))
";
    let input = json!({ "endpoint": s3.endpoint(), "key": s3.access_key(), "secret": s3.secret_key(), "bucket": BUCKET });
    let found = judge(script, &input).await;
    let found = found.as_object().expect("objects by key");
    let month = chrono::Utc::now()
        .format("uploads/%Y/%m/same_name")
        .to_string();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.keys().all(|key| key.starts_with(&month)), "{found:?}");
    let contents: BTreeSet<&str> = found.values().filter_map(Value::as_str).collect();
    assert_eq!(contents, BTreeSet::from(["first", "second"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_url_works_until_it_expires() {
    let s3 = S3Server::start().await;
    let mut builder = TestApp::builder().s3(&s3);
    builder.installation.set_raw("AWS_QUERYSTRING_EXPIRE", "2");
    let app = builder.start().await;
    let file = app.upload("short.txt", "lived").await;
    let url = app.settled(&file["id"]).await["url"]
        .as_str()
        .expect("a URL")
        .to_owned();
    assert!(url.contains("X-Amz-Signature="), "{url}");
    assert_eq!(fetch(&app, &url).await, b"lived");
    wait_until(SOON, async || {
        app.client
            .get(&url)
            .send()
            .await
            .expect("a response")
            .status()
            == 403
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_querystring_auth_the_url_is_plain() {
    let s3 = S3Server::start().await;
    let mut builder = TestApp::builder().s3(&s3);
    builder
        .installation
        .set_raw("AWS_QUERYSTRING_AUTH", "False");
    let app = builder.start().await;
    let file = app.upload("plain.txt", "x").await;
    let stored = app.settled(&file["id"]).await;
    let url = stored["url"].as_str().expect("a URL");
    assert!(!url.contains('?') && url.ends_with("/plain.txt"), "{url}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_overwriting_the_newer_file_takes_the_key_and_the_older_is_deleted() {
    let s3 = S3Server::start().await;
    let mut builder = TestApp::builder().s3(&s3);
    builder
        .installation
        .set_raw("AWS_S3_FILE_OVERWRITE", "true");
    let app = builder.start().await;
    let older = app.upload("one.txt", "older").await;
    app.settled(&older["id"]).await;
    let newer = app.upload("one.txt", "newer").await;
    app.settled(&newer["id"]).await;
    assert_eq!(
        app.file(older["id"].as_str().expect("an id")).await["status"],
        "deleted"
    );
    let mut keys = s3.keys(BUCKET);
    keys.retain(|key| key.starts_with("uploads/"));
    assert_eq!(keys.len(), 1, "{keys:?}");
    assert_eq!(s3.object(BUCKET, &keys[0]).expect("the object"), b"newer");
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_setting_or_bucket_stops_the_start_and_is_named() {
    let s3 = S3Server::start().await;
    for (name, wrong) in [
        ("AWS_STORAGE_BUCKET_NAME", None),
        ("AWS_ACCESS_KEY_ID", None),
        ("AWS_STORAGE_BUCKET_NAME", Some("no-such-bucket")),
        ("AWS_SECRET_ACCESS_KEY", Some("not-the-secret")),
        ("AWS_S3_ENDPOINT_URL", Some("http://127.0.0.1:9")),
    ] {
        let mut installation = Installation::new();
        installation.store_in(&s3);
        match wrong {
            Some(value) => installation.set_raw(name, value),
            None => installation.unset_raw(name),
        }
        let output = command(&["up"], &installation.environment())
            .output()
            .await
            .expect("landfall runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(name), "{name} is not named: {said}");
        assert!(output.stdout.is_empty(), "it never listened");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn up_starts_its_own_redis_restarts_it_and_stops_it() {
    let mut installation = Installation::new();
    installation.unset_raw("LANDFALL__REDIS__URL");
    let mut up = Process::listening(&["up"], &installation.environment()).await;
    let socket = installation.folder().join("data/redis/redis.sock");
    let first = redis_pid(&socket).await;
    rustix::process::kill_process(first, rustix::process::Signal::KILL)
        .expect("Redis can be killed");
    let client = reqwest::Client::new();
    wait_until(SOON, async || {
        let response = client
            .get(format!("{}/readyz", up.url))
            .send()
            .await
            .map_err(|error| error.to_string())?;
        let ready = json(response, 200).await;
        if ready["checks"]["redis"]["status"] == "ok" {
            Ok(())
        } else {
            Err(ready.to_string())
        }
    })
    .await;
    let second = redis_pid(&socket).await;
    assert_ne!(first, second);
    assert!(up.terminate().await.success());
    wait_until(SOON, async || {
        rustix::process::test_kill_process(second).is_err()
    })
    .await;
}

async fn redis_pid(socket: &std::path::Path) -> rustix::process::Pid {
    let redis = landfall_queue::Redis::open(&format!("unix://{}", socket.display()), "test")
        .expect("a URL");
    wait_until(SOON, async || redis.ping().await).await;
    let mut command = tokio::process::Command::new("pgrep");
    command.args(["-f", &format!("unixsocket:{}", socket.display())]);
    let found = command.output().await.expect("pgrep runs");
    let text = String::from_utf8_lossy(&found.stdout);
    let pid = text
        .lines()
        .next()
        .and_then(|line| line.trim().parse().ok())
        .expect("Redis has a pid");
    rustix::process::Pid::from_raw(pid).expect("a pid")
}
