//! One trace from the upload through the jobs to the webhook.

use crate::support::{Process, TestApp, app::SOON};
use landfall_test_servers::wait_until;
use serde_json::Value;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT: &str = "00f067aa0ba902b7";

/// The spans the collector has, of our trace.
fn spans(app: &TestApp) -> Vec<Value> {
    let batches = app.receiver.requests();
    let batches = batches
        .iter()
        .filter(|request| request.path == "/collector/v1/traces");
    let mut spans = Vec::new();
    for batch in batches {
        let body: Value = serde_json::from_slice(&batch.body).unwrap();
        let resource = &body["resourceSpans"][0];
        let name = &resource["resource"]["attributes"][0];
        assert_eq!(name["value"]["stringValue"], "landfall");
        let all = resource["scopeSpans"][0]["spans"].as_array().unwrap();
        spans.extend(all.iter().filter(|span| span["traceId"] == TRACE).cloned());
    }
    spans
}

fn attribute<'s>(span: &'s Value, key: &str) -> Option<&'s Value> {
    let all = span["attributes"].as_array().unwrap();
    all.iter()
        .find(|one| one["key"] == key)
        .map(|one| &one["value"])
}

#[tokio::test(flavor = "multi_thread")]
async fn trace_runs_from_the_upload_to_the_webhook() {
    let app = TestApp::builder().workers(&[]).start().await;
    let webhook = app.webhook("/hook", &[]).await;
    assert!(webhook["id"].is_string());
    let mut environment = app.installation.environment();
    let collector = app.receiver.url("/collector");
    environment.push(("LANDFALL__TRACES__ENDPOINT".to_owned(), collector));
    let mut api = Process::listening(&["serve"], &environment).await;
    let mut worker = Process::spawn(&["worker"], &environment);
    let request = app.client.post(format!("{}/v1/files?filename=t", api.url));
    let request = request.header("traceparent", format!("00-{TRACE}-{CLIENT}-01"));
    let response = request.body("traced").send().await.unwrap();
    assert_eq!(response.status(), 202);
    let sent = wait_until(SOON, async || {
        let requests = app.receiver.requests();
        requests.into_iter().find(|request| request.path == "/hook")
    })
    .await;
    // The last spans are exported when the process ends.
    assert!(worker.terminate().await.success());
    assert!(api.terminate().await.success());
    let spans = spans(&app);
    let of = |name: &str| {
        let found: Vec<&Value> = spans.iter().filter(|span| span["name"] == name).collect();
        let [one] = found[..] else {
            panic!("one {name}, not {found:?} of {spans:?}");
        };
        one.clone()
    };
    let (upload, store, attempt) = (of("request"), of("store"), of("attempt"));
    assert_eq!(upload["parentSpanId"], CLIENT);
    assert_eq!(store["parentSpanId"], upload["spanId"]);
    assert_eq!(attempt["parentSpanId"], upload["spanId"]);
    assert_eq!((&upload["kind"], &attempt["kind"]), (&2.into(), &3.into()));
    let route = attribute(&upload, "http.route").unwrap();
    assert_eq!(route["stringValue"], "/v1/files");
    let status = attribute(&upload, "http.response.status_code").unwrap();
    assert_eq!(status["intValue"], "202");
    let span = attempt["spanId"].as_str().unwrap();
    assert_eq!(sent.header("traceparent"), format!("00-{TRACE}-{span}-01"));
    let begun: u128 = upload["startTimeUnixNano"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let ended: u128 = attempt["endTimeUnixNano"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!(begun < ended);
    let text = serde_json::to_string(&spans).unwrap();
    assert!(!text.contains("filename=t"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn traceparent_is_passed_on_without_a_collector() {
    let app = TestApp::start().await;
    app.webhook("/hook", &[]).await;
    let given = format!("00-{TRACE}-{CLIENT}-01");
    let request = app
        .post("/v1/files?filename=t")
        .header("traceparent", &given);
    request.body("handed on").send().await.unwrap();
    let sent = app.receiver.wait_for(1, SOON).await;
    assert_eq!(sent[0].header("traceparent"), given);
}
