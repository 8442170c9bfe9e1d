//! The secret of a link is in no log, trace, metric, problem or row.

use crate::support::{Installation, Process, app::json};
use reqwest::{Client, Method};
use serde_json::json as object;

#[tokio::test(flavor = "multi_thread")]
async fn the_secret_is_in_no_log_metric_problem_or_row() {
    let mut installation = Installation::new();
    installation.set("log.level", "trace");
    installation.set("log.access", "true");
    let log = installation.folder().join("log");
    let environment = installation.environment();
    let mut up = Process::logging_to(&log, &["up"], &environment).await;
    let client = Client::new();
    let create = client.post(format!("{}/v1/upload-links", up.url));
    let create = create
        .header("Idempotency-Key", "key")
        .json(&object!({"max_files": 2}));
    let link = json(create.send().await.unwrap(), 201).await;
    let url = link["url"].as_str().unwrap();
    let secret = url.rsplit('/').next().unwrap();
    let mut texts = Vec::new();
    for (method, path) in [
        (Method::PUT, ""),
        (Method::GET, ""),
        (Method::DELETE, ""),
        (Method::GET, "/nothing"),
        (Method::POST, "/tus"),
        (Method::PATCH, "/tus/1"),
        (Method::OPTIONS, "/tus"),
    ] {
        let request = client.request(method, format!("{url}{path}"));
        let response = request.body("bytes").send().await.unwrap();
        texts.push(response.text().await.unwrap());
    }
    assert_eq!(
        json(client.put(url).body("more").send().await.unwrap(), 202).await["status"],
        "staged"
    );
    for path in [
        "/metrics",
        "/readyz",
        "/v1/upload-links",
        "/v1/files",
        "/v1/events",
    ] {
        let request = client.get(format!("{}{path}", up.url)).send();
        texts.push(request.await.unwrap().text().await.unwrap());
    }
    assert!(up.terminate().await.success());
    let written = std::fs::read_to_string(&log).unwrap();
    assert!(
        written.contains("/v1/links/{secret}"),
        "requests are logged by their route"
    );
    texts.push(written);
    for text in &texts {
        assert!(!text.contains(secret), "{}", near(text, secret));
    }
    // The response that is kept for the Idempotency-Key is encrypted.
    let data = installation.config().data_dir;
    for entry in std::fs::read_dir(&data).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && path.extension().is_some_and(|end| end != "key") {
            let bytes = std::fs::read(&path).unwrap();
            let held = bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes());
            assert!(!held, "{}", path.display());
        }
    }
}

fn near<'t>(text: &'t str, secret: &str) -> &'t str {
    let line = text.lines().find(|line| line.contains(secret));
    line.unwrap_or_default()
}
