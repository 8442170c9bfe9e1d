//! A server killed in the middle of an upload by a link: the use is given back, or counts for a file that is there.

use crate::support::{Installation, Process, app::json};
use landfall_test_servers::wait_until;
use reqwest::Client;
use serde_json::{Value, json as object};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);

/// Runs each of these on SQLite and on PostgreSQL, with processes to kill.
macro_rules! killed_over_both_databases {
    ($($name:ident),+ $(,)?) => {
        mod killed_on_sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Installation::new()).await;
            })+
        }
        mod killed_on_postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            #[cfg_attr(not(feature = "every-server"), ignore = "needs PostgreSQL: scripts/test runs it")]
            async fn $name() {
                let mut installation = super::Installation::new();
                installation.on_postgres().await;
                super::$name(installation).await;
            })+
        }
    };
}

killed_over_both_databases!(
    a_file_that_was_not_committed_gives_its_use_back,
    a_file_that_was_committed_is_shown_by_its_link,
    an_interrupted_tus_upload_is_resumed_and_an_abandoned_one_gives_its_use_back,
);

async fn start(installation: &Installation, failpoint: Option<&str>) -> Process {
    let mut environment = installation.environment();
    environment.extend(failpoint.map(|value| ("LANDFALL_FAILPOINT".to_owned(), value.to_owned())));
    Process::listening(&["up"], &environment).await
}

async fn link(client: &Client, server: &Process) -> Value {
    let request = client.post(format!("{}/v1/upload-links", server.url));
    let request = request.json(&object!({"max_files": 1}));
    json(request.send().await.unwrap(), 201).await
}

/// The URL of a link at another process.
fn at(server: &Process, link: &Value, field: &str) -> String {
    let path = link[field].as_str().unwrap().split_once("/v1/").unwrap().1;
    format!("{}/v1/{path}", server.url)
}

async fn state(client: &Client, server: &Process, link: &Value) -> Value {
    json(
        client.get(at(server, link, "url")).send().await.unwrap(),
        200,
    )
    .await
}

async fn a_file_that_was_not_committed_gives_its_use_back(installation: Installation) {
    let client = Client::new();
    let mut doomed = start(&installation, Some("request.received=kill")).await;
    let link = link(&client, &doomed).await;
    let put = client.put(at(&doomed, &link, "url")).body("bytes").send();
    assert!(put.await.is_err(), "killed before the response");
    doomed.dies_within(SOON).await;
    let server = start(&installation, None).await;
    let found = state(&client, &server, &link).await;
    assert_eq!(
        (&found["status"], &found["files"]),
        (&object!("open"), &object!([]))
    );
    let put = client.put(at(&server, &link, "url")).body("bytes").send();
    json(put.await.unwrap(), 202).await;
    assert_eq!(state(&client, &server, &link).await["status"], "used");
}

async fn a_file_that_was_committed_is_shown_by_its_link(installation: Installation) {
    let client = Client::new();
    let mut doomed = start(&installation, Some("request.committed=kill")).await;
    // Creating the link commits a request, too.
    let plain = start_beside(&installation).await;
    let link = link(&client, &plain).await;
    let put = async |server: &Process| {
        let request = client
            .put(at(server, &link, "url"))
            .header("Idempotency-Key", "once");
        request.body("bytes").send().await
    };
    assert!(put(&doomed).await.is_err(), "killed before the response");
    doomed.dies_within(SOON).await;
    let file = wait_until(SOON, async || {
        let found = state(&client, &plain, &link).await;
        assert_eq!(found["status"], "used");
        let file = found["files"][0].clone();
        (file["status"] == "staged" || file["status"] == "stored").then_some(file)
    })
    .await;
    // The same request again gets the first response.
    assert_eq!(
        json(put(&plain).await.unwrap(), 202).await["id"],
        file["id"]
    );
}

/// A second process of the same installation, which has no Redis of its own.
async fn start_beside(installation: &Installation) -> Process {
    Process::listening(&["serve"], &installation.environment()).await
}

async fn an_interrupted_tus_upload_is_resumed_and_an_abandoned_one_gives_its_use_back(
    mut installation: Installation,
) {
    installation.set("uploads.session_ttl", "20s");
    installation.set("sweep.interval", "1s");
    let client = Client::new();
    let mut doomed = start(&installation, Some("uploads.synced=kill")).await;
    let link = link(&client, &doomed).await;
    let create = client
        .post(at(&doomed, &link, "tus_url"))
        .header("Tus-Resumable", "1.0.0");
    let created = create.header("Upload-Length", "10").send().await.unwrap();
    assert_eq!(created.status(), 201);
    let path = created.headers()["location"].to_str().unwrap().to_owned();
    let patch = |server: &Process, offset: &str, bytes: &'static str| {
        let request = client.patch(format!("{}{path}", server.url));
        let request = request
            .header("Tus-Resumable", "1.0.0")
            .header("Upload-Offset", offset);
        let request = request.header("Content-Type", "application/offset+octet-stream");
        request.body(bytes).send()
    };
    assert!(
        patch(&doomed, "0", "01234").await.is_err(),
        "killed before the response"
    );
    doomed.dies_within(SOON).await;
    let server = start(&installation, None).await;
    let resumed = patch(&server, "0", "01234").await.unwrap();
    assert_eq!(resumed.status(), 204, "{:?}", resumed.text().await);
    assert_eq!(state(&client, &server, &link).await["status"], "used");
    // Abandoned: the periodic sweep gives the use back.
    wait_until(SOON, async || {
        let found = state(&client, &server, &link).await;
        (found["status"] == "open" && found["files"] == object!([])).then_some(())
    })
    .await;
    let put = client.put(at(&server, &link, "url")).body("bytes").send();
    json(put.await.unwrap(), 202).await;
}
