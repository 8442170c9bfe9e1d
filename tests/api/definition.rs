//! What holds for every path: problems, ids, methods, and accurate documents.

use super::{get, without_workers};
use crate::support::{
    TestApp,
    app::{json, problem},
};
use landfall::api::{problem::Code, spec};
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

#[test]
fn every_operation_lists_the_problems_it_answers() {
    let spec: Value = serde_json::from_str(&spec()).expect("JSON");
    let examples = spec["components"]["examples"]
        .as_object()
        .expect("examples");
    let (mut listed, mut open) = (BTreeSet::new(), BTreeSet::new());
    for operation in operations(&spec) {
        let id = &operation["operationId"];
        let responses = operation["responses"].as_object().expect("answers");
        assert!(!responses.contains_key("default"), "{id}");
        let name = id.as_str().expect("an id");
        let is_link = name.ends_with("ByLink") || name == "getLinkState";
        let is_link = is_link || (name.starts_with("linkTus") && !name.ends_with("Options"));
        if operation["security"] == serde_json::json!([]) && !is_link {
            open.insert(name);
            continue;
        }
        let credential = if is_link { "410" } else { "401" };
        for status in [credential, "403", "429", "500", "503"] {
            assert!(responses.contains_key(status), "{id}: {status}");
        }
        for (status, response) in responses {
            if status.as_str() < "400" {
                continue;
            }
            let body = &response["content"]["application/problem+json"];
            assert_eq!(body["schema"]["$ref"], "#/components/schemas/Problem");
            for code in body["examples"].as_object().expect("examples").keys() {
                assert_eq!(examples[code]["value"]["code"], **code, "{id}");
                let as_shown = &examples[code]["value"]["status"];
                assert_eq!(as_shown.to_string(), *status, "{id}: {code}");
                listed.insert(code.as_str());
            }
        }
    }
    let all = Code::ALL.iter().map(|code| code.as_str());
    // These concern all operations, or are not sent by any of them.
    let elsewhere = ["headers_too_large", "not_implemented"];
    let expected = all.filter(|code| !elsewhere.contains(code)).collect();
    assert_eq!(listed, expected);
    let for_anybody = [
        "getHealth",
        "getMetrics",
        "getReadiness",
        "linkTusOptions",
        "linkTusUploadOptions",
        "tusOptions",
        "tusUploadOptions",
    ];
    assert_eq!(open, BTreeSet::from(for_anybody));
}

#[test]
fn every_problem_example_describes_one_occurrence() {
    let spec: Value = serde_json::from_str(&spec()).expect("JSON");
    let examples = spec["components"]["examples"].as_object();
    for (code, example) in examples.expect("examples") {
        let problem = &example["value"];
        let text = |field: &str| problem[field].as_str().expect("a text").to_owned();
        let (title, detail) = (text("title"), text("detail"));
        assert_ne!(detail.trim_end_matches('.'), title, "{code}");
        for fault in problem["errors"].as_array().into_iter().flatten() {
            assert!(fault["field"].is_string() && fault["message"].is_string());
        }
    }
}

#[test]
fn every_type_has_an_example_with_its_fields() {
    let spec: Value = serde_json::from_str(&spec()).expect("JSON");
    let schemas = spec["components"]["schemas"].as_object().expect("types");
    // Problems have an example per code; the other two are in the examples of their parents.
    let elsewhere = ["Problem", "FieldError", "FileError"];
    for (name, schema) in schemas {
        if schema["type"] != "object" || elsewhere.contains(&name.as_str()) {
            continue;
        }
        let fields = schema["properties"].as_object().expect("fields");
        let example = schema["example"].as_object();
        let example = example.unwrap_or_else(|| panic!("{name} has no example"));
        for field in example.keys() {
            assert!(fields.contains_key(field), "{name} has no {field}");
        }
        for field in schema["required"].as_array().into_iter().flatten() {
            let field = field.as_str().expect("a name");
            assert!(example.contains_key(field), "{name} lacks {field}");
        }
    }
}

fn operations(spec: &Value) -> impl Iterator<Item = &Value> {
    let paths = spec["paths"].as_object().expect("paths").values();
    paths.flat_map(|path| path.as_object().expect("operations").values())
}

#[tokio::test]
async fn the_definition_is_one_that_generators_and_validators_take() {
    let spec: Value = serde_json::from_str(&spec()).expect("JSON");
    assert_eq!(spec["openapi"], "3.1.0");
    assert_eq!(spec["servers"][0]["url"], "/");
    let schemas = &spec["components"]["schemas"];
    assert!(
        schemas["File"].is_null(),
        "generators have a type of that name"
    );
    let error = &schemas["FileObject"]["properties"]["error"]["oneOf"];
    assert_eq!(error[1], serde_json::json!({"type": "null"}), "{error}");
    assert!(schemas["Webhook"]["example"].get("secret").is_none());
    for (name, schema) in schemas.as_object().expect("types") {
        assert_ne!(schema.get("example"), Some(&Value::Null), "{name}");
        for (field, value) in schema["example"].as_object().into_iter().flatten() {
            let kind = &schema["properties"][field]["type"];
            assert!(
                !(value.is_null() && kind.is_string()),
                "{name}.{field} may not be null"
            );
        }
    }
    for operation in operations(&spec) {
        assert!(operation["tags"][0].is_string(), "{operation}");
        // Generators drop a request body of any type.
        let body = &operation["requestBody"]["content"];
        assert!(body.get("*/*").is_none(), "{operation}");
    }
    let text = landfall::api::spec();
    for refused in ["\"nullable\"", "schemas/File\""] {
        assert!(!text.contains(refused), "{refused}");
    }
    let (_, create) = text.split_once("\"createFile\"").expect("it is there");
    let content = create
        .split_once("\"content\": {")
        .expect("it has a body")
        .1;
    assert!(content.trim_start().starts_with("\"multipart/form-data\""));
    let app = TestApp::builder()
        .workers(&[])
        .set("server.public_url", "https://files.example/in/")
        .start()
        .await;
    let served = json(get(&app, "/openapi.json").await, 200).await;
    assert_eq!(served["servers"][0]["url"], "https://files.example/in");
    let security = &served["paths"]["/v1/files"]["get"]["security"];
    assert_eq!(*security, serde_json::json!([{}, {"token": []}]));
}

#[test]
fn content_is_documented_with_any_media_type() {
    let spec: Value = serde_json::from_str(&spec()).expect("JSON");
    for (path, status) in [
        ("/v1/files/{id}/content", "200"),
        ("/v1/files/{id}/content", "206"),
        ("/v1/tus/{id}", "200"),
    ] {
        let content = &spec["paths"][path]["get"]["responses"][status]["content"];
        let ranges: Vec<&String> = content.as_object().expect("content").keys().collect();
        assert_eq!(
            ranges,
            ["*/*", "application/octet-stream"],
            "{path} {status}"
        );
    }
}

#[tokio::test]
async fn unknown_paths_and_wrong_methods_are_problems() {
    let app = without_workers().await;
    for path in ["/v1", "/v1/", "/v1/nothing", "/nothing", "/v1//", "//"] {
        problem(get(&app, path).await, 404, "not_found").await;
    }
    let id = "01928f4e-6f00-7a3b-8c1d-2e3f4a5b6c7d";
    for (method, path, allowed) in [
        (Method::PUT, "/v1/files".to_owned(), "GET, HEAD, POST"),
        (Method::POST, format!("/v1/files/{id}"), "DELETE, GET, HEAD"),
        (Method::DELETE, "/healthz".to_owned(), "GET, HEAD"),
        (Method::GET, format!("/v1/webhooks/{id}/test"), "POST"),
    ] {
        let refused = app.request(method, &path).send().await.expect("a response");
        assert_eq!(refused.headers()["allow"], allowed, "{path}");
        problem(refused, 405, "method_not_allowed").await;
    }
}

#[tokio::test]
async fn a_valid_request_id_is_kept_and_any_other_replaced() {
    let app = without_workers().await;
    let with = async |id: &str| {
        let sent = app.get("/healthz").header("x-request-id", id).send().await;
        let given = sent.expect("a response").headers()["x-request-id"].clone();
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
        "/v1/tus",
        "/v1/tus/{id}",
        "/healthz",
        "/readyz",
        "/metrics",
    ] {
        assert!(paths.contains_key(path), "{path}");
    }
    for path in paths.keys() {
        assert!(page.contains(path.as_str()), "{path}");
    }
    for code in Code::ALL {
        assert!(page.contains(&format!("<code>{}</code>", code.as_str())));
    }
    assert!(!page.contains('`'), "code is shown as code");
    for outside in ["<script", "http://", "https://cdn", "@import"] {
        assert!(!page.contains(outside), "{outside}");
    }
    let problem = &spec["components"]["schemas"]["Problem"]["properties"];
    for field in ["type", "title", "status", "detail", "code", "errors"] {
        assert!(problem[field].is_object(), "{field}");
    }
}

#[tokio::test]
async fn readiness_has_every_check_and_is_degraded_without_redis() {
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
    // There are no workers here.
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
