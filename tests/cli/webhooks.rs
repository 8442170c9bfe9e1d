//! `landfall webhook` and `landfall batch`.

use super::{Client, text};
use crate::support::{TestApp, app::SOON};
use landfall_test_servers::Behaviour;

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_are_shown_edited_paused_and_rotated() {
    let app = TestApp::start().await;
    let client = Client::of(&app);
    let url = app.receiver.url("/hook");
    let added = [
        "webhook",
        "add",
        &url,
        "--json",
        "--header",
        "X-Key: hunter2",
    ];
    let added = client.run(&added).await.json();
    let id = text(&added["id"]);
    let shown = client.run(&["webhook", "show", id]).await.done();
    assert!(
        shown.contains(&url) && shown.contains("headers:     x-key"),
        "{shown}"
    );
    assert!(
        !shown.contains("secret") && !shown.contains("hunter2"),
        "{shown}"
    );

    let paused = client.run(&["webhook", "pause", id]).await.done();
    assert!(paused.contains("active:      no"), "{paused}");
    let list = client.run(&["webhook", "list"]).await.done();
    assert!(list.contains("  no  "), "{list}");
    let resumed = client.run(&["webhook", "resume", id]).await.done();
    assert!(resumed.contains("active:      yes"), "{resumed}");

    let edit = [
        "webhook",
        "edit",
        id,
        "--json",
        "--event",
        "file.stored",
        "--description",
        "archive",
    ];
    let edited = client.run(&edit).await.json();
    assert_eq!(edited["event_types"], serde_json::json!(["file.stored"]));
    assert_eq!(
        (text(&edited["url"]), text(&edited["description"])),
        (url.as_str(), "archive")
    );
    assert_eq!(edited["header_names"], serde_json::json!(["x-key"]));
    let edit = [
        "webhook",
        "edit",
        id,
        "--json",
        "--all-events",
        "--no-headers",
    ];
    let edited = client.run(&edit).await.json();
    assert_eq!(edited["event_types"], serde_json::json!([]));
    assert_eq!(edited["header_names"], serde_json::json!([]));
    client.run(&["webhook", "edit", id]).await.misused();

    let rotated = client.run(&["webhook", "rotate-secret", id]).await.done();
    assert!(rotated.contains("whsec_"), "{rotated}");
    assert!(!rotated.contains(text(&added["secret"])), "it is a new one");
    let unknown = ["webhook", "show", "01928f4e-6f00-7a3b-8c1d-2e3f4a5b6c7d"];
    let unknown = client.run(&unknown).await.failed();
    assert!(unknown.contains("not_found"), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_that_waits_says_whether_it_worked() {
    let app = TestApp::start().await;
    let client = Client::of(&app);
    let webhook = app.webhook("/hook", &[]).await;
    let id = text(&webhook["id"]);
    let worked = client.run(&["webhook", "test", id, "--wait"]).await.done();
    assert!(
        worked.starts_with("delivered: the receiver answered 200 within "),
        "{worked}"
    );
    app.receiver.set_next("/hook", 1, &Behaviour::status(500));
    let failed = client
        .run(&["webhook", "test", id, "--wait"])
        .await
        .failed();
    assert!(
        failed.contains("not delivered: the receiver answered 500"),
        "{failed}"
    );
    app.receiver.wait_for_at("/hook", 3, SOON).await;
    let deliveries = client
        .run(&["webhook", "deliveries", id, "--json"])
        .await
        .json();
    assert_eq!(deliveries["items"].as_array().map(Vec::len), Some(2));
    let table = client
        .run(&["webhook", "deliveries", id, "--status", "delivered"])
        .await
        .done();
    assert!(
        table.starts_with("EVENT") && table.contains("delivered"),
        "{table}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_created_filled_and_closed() {
    let app = TestApp::start().await;
    let client = Client::of(&app);
    let created = [
        "batch",
        "create",
        "--json",
        "--metadata",
        r#"{"album":"summer"}"#,
    ];
    let created = client.run(&created).await.json();
    let id = text(&created["id"]);
    let file = client.file("a.txt", b"hello");
    let upload = ["upload", &file, "--batch", id, "--wait"];
    let uploaded = client.run(&upload).await;
    assert_eq!(uploaded.status, 0, "{uploaded:?}");
    let shown = client.run(&["batch", "show", id]).await.done();
    assert!(shown.contains("stored:    1"), "{shown}");
    let closed = client
        .run(&["batch", "finalize", id, "--json"])
        .await
        .json();
    assert_eq!(closed["total_files"], 1);
    client
        .run(&["batch", "create", "--metadata", "[]"])
        .await
        .misused();
}
