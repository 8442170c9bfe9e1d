//! `/readyz`, the overview and the alerts report faults within 15 s, and reveal no server internals.

use crate::support::TestApp;
use landfall_test_servers::{Durability, PostgresServer, RedisServer, S3Server, wait_until};
use landfall_workers::QueueName;
use serde_json::Value;
use std::time::{Duration, Instant};

/// What the issue allows.
const SEEN_WITHIN: Duration = Duration::from_secs(15);

const ALERTS: &str = include_str!("../../examples/monitoring/alerts.yaml");

/// What each check's fault is called on the overview, and by the alert rules.
const TOLD: [(&str, &str, &str); 6] = [
    ("database", "Database is down.", "LandfallDatabaseDown"),
    ("redis", "Redis cannot be reached.", "LandfallRedisDown"),
    ("storage", "Storage is down.", "LandfallStorageDown"),
    ("staging", "Staging is down.", "LandfallStagingDown"),
    ("workers", "No worker is running.", "LandfallNoWorker"),
    ("sweep", "The sweep is late.", "LandfallSweepLate"),
];

/// Parses the duration after this key in the alert rules.
fn seconds(name: &str) -> Duration {
    let (_, rest) = ALERTS.split_once(name).unwrap();
    let (number, _) = rest.split_once('s').unwrap();
    Duration::from_secs(number.trim().parse().unwrap())
}

/// The sample an alert fires over when it is zero. It must not wait before it fires.
fn sample(alert: &str) -> String {
    let (_, rest) = ALERTS.split_once(&format!("- alert: {alert}\n")).unwrap();
    let rule = rest.split("- alert:").next().unwrap();
    assert!(!rule.contains("for:"), "{alert} waits");
    let (_, expression) = rule.split_once("expr: ").unwrap();
    let expression = expression.lines().next().unwrap();
    let inner = expression.strip_suffix(") == 0").unwrap();
    inner.split_once('(').unwrap().1.to_owned()
}

/// Waits until the overview and the metrics show the fault as well: the metrics early enough for a scrape and an
/// evaluation by Prometheus.
async fn told(app: &TestApp, check: &str, begun: Instant) {
    let (_, sentence, alert) = TOLD.into_iter().find(|told| told.0 == check).unwrap();
    let left = |of: Duration| of.saturating_sub(begun.elapsed());
    let line = format!("{} 0\n", sample(alert));
    let rules = seconds("scrape_interval:") + seconds("    interval:");
    wait_until(left(SEEN_WITHIN - rules), async || {
        let metrics = app.text("/metrics").await;
        if metrics.contains(&line) {
            Ok(())
        } else {
            Err(metrics)
        }
    })
    .await;
    wait_until(left(SEEN_WITHIN), async || {
        let overview = app.text("/").await;
        if overview.contains(sentence) {
            Ok(())
        } else {
            Err(overview)
        }
    })
    .await;
}

async fn ready(app: &TestApp) -> Result<Value, String> {
    let response = app.get("/readyz").send().await;
    response
        .map_err(|error| error.to_string())?
        .json()
        .await
        .map_err(|error| error.to_string())
}

/// Waits until the check has the status, and returns the report.
async fn seen(app: &TestApp, check: &str, status: &str) -> Value {
    let begun = Instant::now();
    let report = wait_until(SEEN_WITHIN, async || {
        let report = ready(app).await?;
        if report["checks"][check]["status"] == status {
            Ok(report)
        } else {
            Err(report.to_string())
        }
    })
    .await;
    let text = report.to_string();
    for inside in [
        "127.0.0.1",
        "redis://",
        "postgres",
        "secret",
        "SELECT",
        "os error",
        "landfall-test",
        "/tmp",
    ] {
        assert!(!text.contains(inside), "{inside} is told: {text}");
    }
    if status != "ok" {
        told(app, check, begun).await;
    }
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_that_is_down_is_degraded() {
    let redis = RedisServer::start().await;
    let app = TestApp::builder()
        .set("redis.url", &redis.url())
        .start()
        .await;
    seen(&app, "workers", "ok").await;
    redis.stop().await;
    let report = seen(&app, "redis", "degraded").await;
    assert_eq!(report["checks"]["database"]["status"], "ok");
    assert_eq!(report["status"], "degraded");
    app.read("/readyz").await;
    app.upload("still.txt", "taken in").await;
    let metrics = app.text("/metrics").await;
    assert!(metrics.contains("landfall_healthy{check=\"redis\"} 0"));
    assert!(!metrics.contains("landfall_queue_jobs"), "old figures");
    redis.start_again().await;
    seen(&app, "redis", "ok").await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn database_that_is_down_is_down() {
    let postgres = PostgresServer::start(Durability::Off).await;
    let database = postgres.create_database().await;
    let app = TestApp::builder()
        .set("database.url", &database)
        .start()
        .await;
    seen(&app, "database", "ok").await;
    postgres.stop().await;
    let report = seen(&app, "database", "down").await;
    assert_eq!(report["checks"]["redis"]["status"], "ok");
    let response = app.get("/readyz").send().await.unwrap();
    assert_eq!(response.status(), 503);
    let metrics = app.text("/metrics").await;
    assert!(metrics.contains("landfall_healthy{check=\"database\"} 0"));
    assert!(!metrics.contains("landfall_files"), "old figures");
    postgres.start_again().await;
    seen(&app, "database", "ok").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_storage_folder_is_degraded_and_uploads_are_accepted() {
    let app = TestApp::builder().workers(&[]).start().await;
    seen(&app, "storage", "ok").await;
    let path = &app.parts.app.config.storage.path;
    std::fs::remove_dir_all(path).unwrap();
    let report = seen(&app, "storage", "degraded").await;
    assert_eq!(report["status"], "degraded");
    assert_eq!(report["checks"]["staging"]["status"], "ok");
    app.upload("waits.txt", "waits").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_bucket_is_degraded() {
    let s3 = S3Server::start().await;
    let app = TestApp::builder().s3(&s3).start().await;
    seen(&app, "storage", "ok").await;
    std::fs::remove_dir_all(s3.root().join(crate::support::installation::BUCKET)).unwrap();
    seen(&app, "storage", "degraded").await;
    s3.create_bucket(crate::support::installation::BUCKET);
    seen(&app, "storage", "ok").await;
    s3.stop().await;
    seen(&app, "storage", "degraded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_staging_folder_is_down() {
    let app = TestApp::builder().workers(&[]).start().await;
    seen(&app, "staging", "ok").await;
    std::fs::remove_dir_all(&app.parts.app.config.staging.path).unwrap();
    let report = seen(&app, "staging", "down").await;
    assert_eq!(report["status"], "down");
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_worker_is_noticed() {
    let app = TestApp::builder().workers(&[]).start().await;
    let environment = app.installation.environment();
    let mut worker = crate::support::Process::spawn(&["worker"], &environment);
    seen(&app, "workers", "ok").await;
    worker.kill().await;
    seen(&app, "workers", "degraded").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sweep_that_is_late_is_degraded() {
    let app = TestApp::builder()
        .set("sweep.interval", "1s")
        .workers(&[QueueName::Finalize])
        .start()
        .await;
    app.sweep().await;
    seen(&app, "sweep", "ok").await;
    // No worker serves the maintenance queue here.
    let report = seen(&app, "sweep", "degraded").await;
    let detail = report["checks"]["sweep"]["detail"].as_str().unwrap();
    assert!(detail.contains("overdue"), "{detail}");
}
