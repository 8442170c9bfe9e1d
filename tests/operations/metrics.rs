//! `/metrics`, docs/metrics.md and examples/monitoring say the same.

use crate::support::{
    Process, TestApp,
    app::{SOON, json},
};
use landfall_core::audit::{self, AuditOptions, NoObserver};
use landfall_test_servers::wait_until;
use serde_json::Value;
use std::collections::BTreeSet;

const EXPLAINED: &str = include_str!("../../docs/metrics.md");
const ALERTS: &str = include_str!("../../examples/monitoring/alerts.yaml");
const DASHBOARD: &str = include_str!("../../examples/monitoring/grafana.json");

/// The metrics docs/metrics.md has rows for.
fn explained() -> BTreeSet<String> {
    let names = EXPLAINED.lines().filter_map(|line| {
        let (name, _) = line.strip_prefix("| `")?.split_once('`')?;
        Some(name.to_owned())
    });
    names.collect()
}

/// Returns the names of the metrics in a response; a histogram by the prefix of its samples.
fn told(text: &str) -> BTreeSet<String> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let name = |line: &str| {
        let (name, kind) = line.split_once(' ').unwrap();
        match kind {
            "counter" => format!("{name}_total"),
            _ => name.to_owned(),
        }
    };
    types.map(name).collect()
}

async fn scrape(app: &TestApp) -> String {
    let response = app.get("/metrics").send().await.unwrap();
    assert_eq!(response.status(), 200);
    response.text().await.unwrap()
}

/// One that has done everything there is to count.
async fn busy() -> TestApp {
    let app = TestApp::start().await;
    app.webhook("/hook", &[]).await;
    let file = app.upload("counted.txt", "counted").await;
    app.settled(&file["id"]).await;
    app.receiver.wait_for(1, SOON).await;
    app.sweep().await;
    audit::audit(&app.parts.app, AuditOptions::default(), &NoObserver)
        .await
        .unwrap();
    app
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_is_documented_and_every_documented_one_exists() {
    let app = busy().await;
    let told = wait_until(SOON, async || {
        let text = scrape(&app).await;
        // The delivery is counted a moment after its receiver gets it.
        text.contains("landfall_deliveries_total{outcome=\"delivered\"} 1")
            .then(|| told(&text))
    })
    .await;
    assert_eq!(told, explained());
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_what_was_done() {
    let app = busy().await;
    let create = app.request(reqwest::Method::POST, "/v1/tus");
    let created = create
        .header("Tus-Resumable", "1.0.0")
        .header("Upload-Length", "5")
        .header("Content-Type", "application/offset+octet-stream")
        .body("bytes")
        .send()
        .await
        .unwrap();
    assert_eq!(created.status(), 201);
    let text = wait_until(SOON, async || {
        let text = scrape(&app).await;
        let all = [
            "landfall_received_bytes_total 12",
            "landfall_http_requests_total{method=\"POST\",route=\"/v1/tus\",status=\"201\"} 1",
            "landfall_stage_duration_seconds_count{stage=\"receive\",outcome=\"staged\"} 2",
            "landfall_stage_duration_seconds_count{stage=\"finalize\",outcome=\"stored\"} 2",
            "landfall_stage_duration_seconds_count{stage=\"deliver\",outcome=\"delivered\"} 2",
            "landfall_healthy{check=\"database\"} 1",
            "landfall_healthy{check=\"redis\"} 1",
            "landfall_queue_jobs{queue=\"finalize\",state=\"ready\"} 0",
            "landfall_queue_jobs_done_total{queue=\"finalize\"} 2",
            "landfall_queue_paused{queue=\"deliver\"} 0",
            "landfall_oldest_staged_age_seconds 0.0",
            "landfall_oldest_undelivered_age_seconds 0.0",
            "landfall_audit_offenders{invariant=\"I1\"} 0",
            "landfall_files{status=\"failed\"} 0",
        ];
        match all.into_iter().find(|line| !text.contains(line)) {
            Some(missing) => Err(format!("{missing} is missing:\n{text}")),
            None => Ok(text),
        }
    })
    .await;
    assert!(text.ends_with("# EOF\n"));
    let ids = text.contains("counted.txt") || text.contains("/v1/files/0");
    assert!(!ids, "labels grow with what is stored:\n{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_have_the_unrepaired_problems() {
    let app = busy().await;
    let landfall = &app.parts.app;
    std::fs::remove_dir_all(landfall.config.storage.path.join("uploads")).unwrap();
    audit::audit(landfall, AuditOptions::default(), &NoObserver)
        .await
        .unwrap();
    let text = scrape(&app).await;
    assert!(
        text.contains("landfall_audit_offenders{invariant=\"I1\"} 1"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_serves_its_own_metrics_on_metrics_bind() {
    let app = TestApp::builder().workers(&[]).start().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let mut environment = app.installation.environment();
    environment.push(("LANDFALL__METRICS__BIND".to_owned(), address.to_string()));
    let mut worker = Process::spawn(&["worker"], &environment);
    let file = app.upload("worked.txt", "worked").await;
    app.settled(&file["id"]).await;
    let url = format!("http://{address}");
    wait_until(SOON, async || {
        let response = app.client.get(format!("{url}/metrics")).send().await;
        let text = response.map_err(|error| error.to_string())?.text().await;
        let text = text.map_err(|error| error.to_string())?;
        let line = "landfall_stage_duration_seconds_count{stage=\"finalize\",outcome=\"stored\"} 1";
        if text.contains(line) && text.contains("landfall_workers 3") {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await;
    let ready = app.client.get(format!("{url}/readyz")).send().await;
    let ready: Value = json(ready.unwrap(), 200).await;
    assert_eq!(ready["checks"]["workers"]["status"], "ok");
    let none = app.client.get(format!("{url}/v1/files")).send().await;
    assert_eq!(none.unwrap().status(), 404, "a worker has no API");
    assert!(worker.terminate().await.success());
}

/// Every name in a text that is one of ours.
fn named(text: &str) -> BTreeSet<String> {
    let names = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let ours = names.filter(|name| name.starts_with("landfall_") || name.starts_with("process_"));
    let sample = |name: &str| {
        let histogram = ["_bucket", "_count", "_sum"];
        let base = histogram.iter().find_map(|end| name.strip_suffix(end));
        base.unwrap_or(name).to_owned()
    };
    ours.map(sample).collect()
}

#[test]
fn alerts_and_dashboard_use_only_existing_metrics() {
    let explained = explained();
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let expressions: Vec<&str> = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().unwrap())
        .map(|target| target["expr"].as_str().unwrap())
        .collect();
    let rules: Vec<&str> = ALERTS
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr: "))
        .collect();
    assert_eq!(rules.len(), ALERTS.matches("- alert: ").count());
    for text in expressions.iter().chain(&rules) {
        let named = named(text);
        assert!(
            named.is_subset(&explained),
            "{text} names {:?}",
            named.difference(&explained)
        );
    }
    for fault in [
        "DatabaseDown",
        "RedisDown",
        "StorageDown",
        "NoWorker",
        "SweepLate",
        "StagedTooLong",
        "DeadJobs",
        "AuditOffenders",
    ] {
        assert!(
            ALERTS.contains(&format!("- alert: Landfall{fault}\n")),
            "{fault}"
        );
    }
    // Unused metrics need not be documented.
    let shown: BTreeSet<String> = expressions.iter().flat_map(|text| named(text)).collect();
    let unseen: Vec<&String> = explained.difference(&shown).collect();
    let allowed = [
        "landfall_queue_paused",
        "landfall_staging_free_bytes",
        "landfall_staging_quota_bytes",
        "landfall_staging_used_bytes",
        "process_open_fds",
    ];
    assert_eq!(unseen, allowed);
}
