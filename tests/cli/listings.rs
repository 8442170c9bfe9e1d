//! `landfall file`, `link`, `webhook` and `event`.

use super::{Client, CommandOutput, text};
use crate::support::{
    TestApp,
    app::{SOON, json},
};
use landfall_core::tokens::{self, TokenScope};
use landfall_test_servers::{Behaviour, S3Operation, S3Server, wait_until};
use secrecy::ExposeSecret;
use serde_json::json;

const NOBODY: &str = "01928f4e-6f00-7a3b-8c1d-2e3f4a5b6c7d";

#[tokio::test(flavor = "multi_thread")]
async fn failed_files_are_retried_by_id_or_all_that_match() {
    let server = S3Server::start().await;
    let builder = TestApp::builder().s3(&server);
    let app = builder.set("workers.retry_for", "1s").start().await;
    let client = Client::of(&app);
    server.fail_next(S3Operation::PutObject, 10_000, 411);
    let mut failed = Vec::new();
    for number in 0..3 {
        let taken = app.upload(&format!("{number}.txt"), "hello").await;
        let file = app.settled(&taken["id"]).await;
        assert_eq!(file["error"]["code"], "storage_unavailable", "{file}");
        failed.push(text(&file["id"]).to_owned());
    }
    server.heal();
    let shown = client.run(&["file", "show", &failed[0]]).await.done();
    assert!(shown.contains("retryable until"), "{shown}");
    let one = client.run(&["file", "retry", &failed[0]]).await.done();
    assert_eq!(one, format!("{} staged\n", failed[0]));
    let matching = ["file", "retry", "--status", "failed", "--code"];
    let none = client.run(&[&matching[..], &["poison"]].concat()).await;
    assert_eq!(none.done(), "failed files that match: 0\n");
    let all = client
        .run(&[&matching[..], &["storage_unavailable"]].concat())
        .await;
    let all = all.done();
    assert!(all.starts_with("failed files that match: 2\n"), "{all}");
    assert_eq!(all.lines().count(), 3, "{all}");
    for id in &failed {
        assert_eq!(app.settled(&id.as_str().into()).await["status"], "stored");
    }
    let refused = client.run(&["file", "retry", &failed[0]]).await.failed();
    assert!(
        refused.contains("not_retryable") || refused.contains("retried"),
        "{refused}"
    );
    client.run(&["file", "retry"]).await.misused();
}

#[tokio::test(flavor = "multi_thread")]
async fn links_are_created_listed_and_revoked() {
    let app = TestApp::start().await;
    let client = Client::of(&app);
    assert_eq!(client.run(&["link", "list"]).await.done(), "");
    let create = ["link", "create", "--expires-in", "10m", "--max-files", "2"];
    let more = ["--max-size", "10MiB", "--type", "image/*", "--json"];
    let more = [&more[..], &["--metadata", r#"{"user":"42"}"#]].concat();
    let made = client.run(&[&create[..], &more].concat()).await.json();
    assert_eq!(made["max_files"], 2);
    assert_eq!(made["max_size_bytes"], 10 * 1024 * 1024);
    assert_eq!(made["allowed_types"], json!(["image/*"]));
    let link = client.run(&["link", "create"]).await.done();
    let url = link
        .split_whitespace()
        .find(|word| word.contains("/v1/links/"));
    let sent = app.client.put(url.unwrap()).body("hello").send().await;
    json(sent.unwrap(), 202).await;
    let table = client.run(&["link", "list"]).await.done();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(
        lines[1].contains("used") && lines[1].contains("1/1"),
        "{table}"
    );
    assert!(
        lines[2].contains("open") && lines[2].contains("0/2"),
        "{table}"
    );
    assert!(!table.contains("/v1/links/"), "{table}");
    let revoked = client
        .run(&["link", "revoke", text(&made["id"])])
        .await
        .done();
    assert_eq!(revoked, format!("revoked {}\n", text(&made["id"])));
    let table = client.run(&["link", "list"]).await.done();
    assert!(table.contains("revoked"), "{table}");
    client
        .run(&["link", "create", "--metadata", "[1]"])
        .await
        .misused();
    let refused = client.run(&["link", "create", "--expires-in", "1s"]).await;
    assert!(refused.failed().contains("expires_in"));
    client.run(&["link", "revoke", NOBODY]).await.failed();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_listed_shown_and_deleted() {
    let app = TestApp::start().await;
    let client = Client::of(&app);
    assert_eq!(client.run(&["file", "list"]).await.done(), "");
    for name in ["a.txt", "b.txt", "c.png"] {
        let taken = app.upload(name, "hello").await;
        app.settled(&taken["id"]).await;
    }
    let table = client
        .run(&["file", "list", "--status", "stored"])
        .await
        .done();
    let lines: Vec<&str> = table.lines().collect();
    assert!(
        lines[0].starts_with("ID ") && lines[0].ends_with("NAME"),
        "{table}"
    );
    let names: Vec<_> = lines[1..]
        .iter()
        .map(|line| line.rsplit(' ').next())
        .collect();
    assert_eq!(names, [Some("c.png"), Some("b.txt"), Some("a.txt")]);
    let found = client
        .run(&["file", "list", "--query", "b.", "--json"])
        .await
        .json();
    let list = json(
        app.get("/v1/files?q=b.").send().await.expect("a response"),
        200,
    )
    .await;
    assert_eq!(found, list, "the server's own JSON");
    let all = client
        .run(&["file", "list", "--all", "--json"])
        .await
        .json();
    assert_eq!(all["items"].as_array().map(Vec::len), Some(3));

    let id = text(&found["items"][0]["id"]);
    assert_eq!(
        client.run(&["file", "show", id, "--json"]).await.json(),
        app.file(id).await
    );
    let shown = client.run(&["file", "show", id]).await.done();
    assert!(
        shown.contains("b.txt") && shown.contains("stored"),
        "{shown}"
    );
    assert_eq!(
        client.run(&["file", "delete", id]).await.done(),
        format!("deleted {id}\n")
    );
    assert_eq!(app.file(id).await["status"], "deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_with_more_items_says_so_on_standard_error() {
    let app = TestApp::builder().workers(&[]).start().await;
    for name in ["a", "b", "c"] {
        app.upload(name, "hello").await;
    }
    let ran = Client::of(&app)
        .run(&["file", "list", "--limit", "2"])
        .await;
    assert_eq!((ran.status, ran.stdout.lines().count()), (0, 3), "{ran:?}");
    assert!(ran.stderr.contains("--all"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_are_added_listed_tested_and_removed() {
    let app = TestApp::start().await;
    let client = Client::of(&app);
    let url = app.receiver.url("/hook");
    let added = ["webhook", "add", &url, "--event", "file.stored", "--json"];
    let added = client.run(&added).await.json();
    assert!(text(&added["secret"]).starts_with("whsec_"), "{added}");
    assert_eq!(added["event_types"], json!(["file.stored"]));
    let id = text(&added["id"]);
    let table = client.run(&["webhook", "list"]).await.done();
    assert!(
        table.contains(id) && table.contains(&url) && !table.contains("whsec_"),
        "{table}"
    );
    let tested = client.run(&["webhook", "test", id]).await.done();
    assert!(tested.contains("landfall event show "), "{tested}");
    let received = app.receiver.wait_for_at("/hook", 1, SOON).await;
    assert!(
        tested.contains(received[0].header("webhook-id")),
        "{tested}"
    );
    let removed = client.run(&["webhook", "remove", id]).await.done();
    assert_eq!(removed, format!("removed {id}\n"));
    assert_eq!(client.run(&["webhook", "list"]).await.done(), "");
    let text = client.run(&["webhook", "add", &url]).await.done();
    assert!(text.contains("whsec_") && text.contains("all"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_listed_shown_redelivered_and_replayed() {
    let app = TestApp::start().await;
    let client = Client::of(&app);
    let webhook = app.webhook("/hook", &["file.stored"]).await;
    app.receiver
        .set_next("/hook", 1, &Behaviour::status(500).body("not now"));
    let taken = app.upload("a.txt", "hello").await;
    app.receiver.wait_for_at("/hook", 2, SOON).await;
    let about = [
        "event",
        "list",
        "--type",
        "file.stored",
        "--aggregate",
        text(&taken["id"]),
        "--json",
    ];
    let event = wait_until(SOON, async || {
        let list = client.run(&about).await.json();
        let event = list["items"][0].clone();
        (event["status"] == "delivered").then_some(event)
    })
    .await;
    let id = text(&event["id"]);
    let table = client
        .run(&["event", "list", "--status", "delivered"])
        .await
        .done();
    assert!(
        table.contains(id) && table.contains("file.stored"),
        "{table}"
    );
    let shown = client.run(&["event", "show", id]).await.done();
    assert!(
        shown.contains("500") && shown.contains(text(&webhook["id"])),
        "{shown}"
    );
    let detail = client.run(&["event", "show", id, "--json"]).await.json();
    assert_eq!(
        detail["deliveries"][0]["attempts"][0]["response_body"],
        "not now"
    );

    let said = client.run(&["event", "redeliver", id]).await.done();
    assert!(said.contains(id), "{said}");
    app.receiver.wait_for_at("/hook", 3, SOON).await;
    let one = [
        "event",
        "redeliver",
        id,
        "--webhook",
        text(&webhook["id"]),
        "--json",
    ];
    assert_eq!(client.run(&one).await.json()["id"], event["id"]);
    app.receiver.wait_for_at("/hook", 4, SOON).await;
    let replay = [
        "event",
        "replay",
        text(&webhook["id"]),
        "--since",
        "1h",
        "--json",
    ];
    let replayed = wait_until(SOON, async || {
        let replayed = client.run(&replay).await.json();
        (replayed["count"] == 1).then_some(())
    });
    replayed.await;
    let requests = app.receiver.wait_for_at("/hook", 5, SOON).await;
    assert!(
        requests
            .iter()
            .all(|request| request.header("webhook-id") == id)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_by_the_server_is_one_message_and_status_1() {
    let app = TestApp::builder().workers(&[]).start().await;
    let client = Client::of(&app);
    for arguments in [
        ["file", "show", NOBODY].as_slice(),
        &["file", "delete", NOBODY],
        &["webhook", "test", NOBODY],
        &["webhook", "remove", NOBODY],
        &["event", "show", NOBODY],
        &["event", "redeliver", NOBODY],
        &["event", "replay", NOBODY, "--since", "1h"],
    ] {
        let told = client.run(arguments).await.failed();
        assert!(
            told.starts_with("landfall: ") && told.contains("(not_found)"),
            "{told}"
        );
        assert_eq!(told.lines().count(), 1, "{told}");
    }
    let told = client
        .run(&["webhook", "add", "ftp://example.com"])
        .await
        .failed();
    assert!(told.contains("url: "), "the field is named: {told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_is_status_2_before_any_request() {
    let nowhere = [("LANDFALL_URL".to_owned(), "http://127.0.0.1:9".to_owned())];
    for arguments in [
        ["file", "show", "nope"].as_slice(),
        &["file", "list", "--status", "odd"],
        &["file", "list", "--limit", "0"],
        &["upload"],
        &["upload", "--parallel", "0", "a"],
        &["upload", "--metadata", "[]", "a"],
        &["webhook", "add", "no url"],
        &["event", "replay", NOBODY],
        &["event", "replay", NOBODY, "--since", "yesterday"],
        &["--url", "ftp://example.com", "file", "list"],
        &["fly"],
        &[],
    ] {
        assert!(
            !CommandOutput::of(arguments, &nowhere)
                .await
                .misused()
                .is_empty()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_server_is_named() {
    let nowhere = [("LANDFALL_URL".to_owned(), "http://127.0.0.1:9".to_owned())];
    let told = CommandOutput::of(&["file", "list"], &nowhere)
        .await
        .failed();
    assert!(told.contains("127.0.0.1:9"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_read_from_the_environment_and_never_shown() {
    let app = TestApp::builder()
        .workers(&[])
        .set("auth.mode", "tokens")
        .start()
        .await;
    let mut client = Client::of(&app);
    let told = client.run(&["file", "list"]).await.failed();
    assert!(told.contains("(unauthorized)"), "{told}");
    let landfall = &app.parts.app;
    let made = tokens::create(
        &landfall.db,
        &landfall.clock,
        "alice",
        &[TokenScope::Read],
        None,
    );
    let (_, secret) = made.await.expect("a token");
    let secret = secret.expose_secret().to_owned();
    client
        .environment
        .push(("LANDFALL_TOKEN".to_owned(), secret.clone()));
    assert_eq!(client.run(&["file", "list"]).await.done(), "");
    let told = client.run(&["webhook", "list"]).await.failed();
    assert!(
        told.contains("(forbidden)") && !told.contains(&secret),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_may_have_a_newline_at_its_end() {
    let app = TestApp::builder()
        .workers(&[])
        .set("auth.mode", "tokens")
        .start()
        .await;
    let landfall = &app.parts.app;
    let scopes = [TokenScope::Read];
    let token = tokens::create(&landfall.db, &landfall.clock, "ann", &scopes, None).await;
    let token = token.expect("a token").1.expose_secret().to_owned();
    let mut client = Client::of(&app);
    let pasted = ("LANDFALL_TOKEN".to_owned(), format!(" {token}\r\n"));
    client.environment.push(pasted);
    assert_eq!(client.run(&["file", "list"]).await.done(), "");
}
