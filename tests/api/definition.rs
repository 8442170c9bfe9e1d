//! What holds for every path: problems, ids, methods, and that the documents say what is there.

use super::{get, without_workers};
use crate::support::app::{json, problem};
use landfall::http::problem::Code;
use reqwest::Method;
use serde_json::Value;
use std::collections::BTreeSet;

const ERRORS: &str = include_str!("../../docs/errors.md");

#[test]
fn every_code_is_explained_with_its_status_and_no_other() {
    let mut explained: Vec<&str> = Vec::new();
    for section in ERRORS.split("\n### `").skip(1) {
        let (code, text) = section.split_once('`').expect("a heading ends");
        let known = Code::ALL.iter().find(|known| known.as_str() == code);
        let known = known.unwrap_or_else(|| panic!("{code} does not exist"));
        let status = format!("{}. ", known.status().as_u16());
        assert!(
            text.trim_start().starts_with(&status),
            "{code} is answered {status}"
        );
        explained.push(code);
    }
    let all: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    let (explained, all) = (BTreeSet::from_iter(explained), BTreeSet::from_iter(all));
    assert_eq!(explained, all);
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_problems() {
    let app = without_workers().await;
    for path in ["/v1", "/v1/", "/v1/nothing", "/nothing", "/v1/files/", "//"] {
        problem(get(&app, path).await, 404, "not_found").await;
    }
    let id = "01928f4e-6f00-7a3b-8c1d-2e3f4a5b6c7d";
    for (method, path, allowed) in [
        (Method::PUT, "/v1/files".to_owned(), "GET, HEAD, POST"),
        (Method::POST, format!("/v1/files/{id}"), "DELETE, GET, HEAD"),
        (Method::DELETE, "/healthz".to_owned(), "GET, HEAD"),
        (Method::GET, format!("/v1/webhooks/{id}/test"), "POST"),
    ] {
        let refused = app.request(method, &path).send().await.expect("an answer");
        assert_eq!(refused.headers()["allow"], allowed, "{path}");
        problem(refused, 405, "method_not_allowed").await;
    }
}

#[tokio::test]
async fn a_sane_request_id_is_kept_and_any_other_replaced() {
    let app = without_workers().await;
    let with = async |id: &str| {
        let sent = app.get("/healthz").header("x-request-id", id).send().await;
        let given = sent.expect("an answer").headers()["x-request-id"].clone();
        given.to_str().expect("text").to_owned()
    };
    assert_eq!(with("abc-1").await, "abc-1");
    for odd in ["", "a b", &"x".repeat(200)] {
        let made = with(odd).await;
        assert!(made.parse::<uuid::Uuid>().is_ok(), "{made}");
    }
}

#[tokio::test]
async fn the_definition_and_its_page_have_every_path() {
    let app = without_workers().await;
    let spec = json(get(&app, "/openapi.json").await, 200).await;
    let page = get(&app, "/docs").await;
    let policy = page.headers()["content-security-policy"]
        .to_str()
        .expect("text")
        .to_owned();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    let page = page.text().await.expect("a page");
    let paths = spec["paths"].as_object().expect("paths");
    for path in [
        "/v1/files",
        "/v1/files/{id}",
        "/v1/files/{id}/content",
        "/v1/webhooks",
        "/v1/events/{id}/redeliver",
    ] {
        assert!(paths.contains_key(path), "{path}");
    }
    for path in paths.keys() {
        assert!(page.contains(path.as_str()), "{path}");
    }
    for outside in ["<script", "http://", "https://cdn", "@import"] {
        assert!(!page.contains(outside), "{outside}");
    }
    let problem = &spec["components"]["schemas"]["Problem"]["properties"];
    for field in ["type", "title", "status", "detail", "code", "errors"] {
        assert!(problem[field].is_object(), "{field}");
    }
}

#[tokio::test]
async fn readiness_has_every_check_and_redis_away_is_degraded() {
    let app = without_workers().await;
    let ready = json(get(&app, "/readyz").await, 200).await;
    for check in [
        "database", "redis", "storage", "staging", "workers", "sweep",
    ] {
        assert!(
            ready["checks"][check]["status"].is_string(),
            "{check}: {ready}"
        );
        assert!(
            ready["checks"][check]["detail"].is_string(),
            "{check}: {ready}"
        );
    }
    assert_eq!(ready["checks"]["database"]["status"], "ok");
    // Nobody works here.
    assert_eq!(ready["status"], "degraded");
}

#[tokio::test]
async fn metrics_count_requests_by_route() {
    let app = without_workers().await;
    app.upload("a", "hello").await;
    problem(get(&app, "/v1/files/x").await, 404, "not_found").await;
    problem(get(&app, "/made/up").await, 404, "not_found").await;
    let text = get(&app, "/metrics").await.text().await.expect("text");
    for line in [
        "landfall_http_requests_total{method=\"POST\",route=\"/v1/files\",status=\"202\"} 1",
        "landfall_http_requests_total{method=\"GET\",route=\"/v1/files/{id}\",status=\"404\"} 1",
        "landfall_files{status=\"staged\"} 1",
        "landfall_received_bytes_total 5",
    ] {
        assert!(text.contains(line), "{line} is missing:\n{text}");
    }
    assert!(!text.contains("made/up"));
    let _: Value = json(get(&app, "/healthz").await, 200).await;
}
