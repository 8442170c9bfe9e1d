//! What the log says, read line by line: who started, each request and file by setting, one line per outage.

use crate::support::{
    Installation, Process, TestApp,
    app::{SOON, json},
    process::command,
};
use landfall_core::tokens::{self, TokenScope};
use landfall_test_servers::{Durability, PostgresServer, wait_until};
use rustix::process::Signal;
use secrecy::ExposeSecret;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tokio::{io::AsyncReadExt, net::TcpStream};

/// The log file of a process that runs in this installation.
fn log_of(installation: &Installation) -> PathBuf {
    installation.folder().join("process.log")
}

fn lines(log: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).expect("a log");
    let parse = |line: &str| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}"))
    };
    // The last line may be incomplete.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(parse)
        .collect()
}

fn with_message(log: &Path, message: &str) -> Vec<Value> {
    let mut lines = lines(log);
    lines.retain(|line| {
        let text = line["message"].as_str().expect("each line has a message");
        text.starts_with(message)
    });
    lines
}

/// Waits for lines with this message.
async fn logged(log: &Path, message: &str, count: usize) -> Vec<Value> {
    wait_until(SOON, async || {
        let found = with_message(log, message);
        match found.len() {
            enough if enough >= count => Ok(found),
            less => Err(format!("{less} lines `{message}`")),
        }
    })
    .await
}

#[tokio::test]
async fn a_process_says_what_it_is_and_uses() {
    let mut installation = Installation::new();
    installation.set("log.format", "json");
    installation.set("log.level", "info");
    let log = log_of(&installation);
    let mut process = Process::logging_to(&log, &["up"], &installation.environment()).await;
    let started = logged(&log, "started", 1).await.remove(0);
    assert_eq!(started["level"], "INFO");
    assert_eq!(started["mode"], "up");
    assert_eq!(started["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(started["pid"], process.id());
    assert_eq!(
        process.url,
        format!("http://{}", started["bind"].as_str().expect("an address"))
    );
    let data = installation.config().data_dir;
    assert_eq!(
        started["storage"],
        data.join("storage").display().to_string()
    );
    assert_eq!(started["queues"], "finalize,deliver,maintenance");
    for field in ["host", "worker", "redis", "timestamp", "target"] {
        let text = started[field].as_str().unwrap_or_default();
        assert!(!text.is_empty(), "{field}: {started}");
    }
    assert!(process.terminate().await.success());
    assert_eq!(with_message(&log, "stopped").len(), 1);
}

#[tokio::test]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn no_line_has_a_secret_of_the_configuration() {
    let mut installation = Installation::new();
    installation.on_postgres().await;
    let database = installation
        .environment()
        .into_iter()
        .find(|(name, _)| name == "LANDFALL__DATABASE__URL")
        .expect("a database")
        .1;
    let database = database.replacen("landfall@", "landfall:hunter2@", 1);
    assert!(database.contains("hunter2"));
    installation.set("database.url", &database);
    installation.set("log.level", "debug");
    let log = log_of(&installation);
    let mut process = Process::logging_to(&log, &["up"], &installation.environment()).await;
    assert!(process.terminate().await.success());
    let text = std::fs::read_to_string(&log).expect("a log");
    assert!(text.contains(" started version="), "{text}");
    assert!(text.contains("database=\"postgres://127.0.0.1:"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_files_are_logged_by_setting() {
    let app = TestApp::builder()
        .workers(&[])
        .set("auth.mode", "tokens")
        .start()
        .await;
    let parts = &app.parts.app;
    let scopes = [TokenScope::Upload, TokenScope::Read];
    let token = tokens::create(&parts.db, &parts.clock, "media", &scopes, None).await;
    let token = token.expect("a token").1.expose_secret().to_owned();
    let mut environment = app.installation.environment();
    for (name, value) in [
        ("FORMAT", "json"),
        ("LEVEL", "info"),
        ("ACCESS", "true"),
        ("FILES", "true"),
    ] {
        environment.retain(|(known, _)| *known != format!("LANDFALL__LOG__{name}"));
        environment.push((format!("LANDFALL__LOG__{name}"), value.to_owned()));
    }
    environment.push((
        "LANDFALL__SERVER__TRUSTED_PROXIES".to_owned(),
        "127.0.0.1/32".to_owned(),
    ));
    let log = log_of(&app.installation);
    let mut process = Process::logging_to(&log, &["up"], &environment).await;
    let base = &process.url;
    let upload = app
        .client
        .post(format!(
            "{base}/v1/files?filename=private-name.txt&secret=abc"
        ))
        .bearer_auth(&token)
        .header("x-forwarded-for", "192.0.2.7")
        .header("x-request-id", "request-1")
        .body("0123456789");
    let file = json(upload.send().await.expect("a response"), 202).await;
    let id = file["id"].as_str().expect("an id");
    let stored = logged(&log, "stored", 1).await.remove(0);
    assert_eq!(stored["file.id"], id);
    assert_eq!(stored["size_bytes"], 10);
    assert_eq!(stored["owner"], "media");
    assert!(stored["ms"].as_i64().is_some_and(|ms| ms >= 0), "{stored}");

    let content = app
        .client
        .get(format!("{base}/v1/files/{id}/content"))
        .bearer_auth(&token);
    assert_eq!(
        content
            .send()
            .await
            .expect("a response")
            .bytes()
            .await
            .expect("a body")
            .len(),
        10
    );
    let unknown = app.client.get(format!("{base}/no/such/hidden-path"));
    assert_eq!(unknown.send().await.expect("a response").status(), 404);

    let requests = logged(&log, "request", 3).await;
    let of = |route: &str| {
        let found = requests.iter().find(|line| line["http.route"] == route);
        found.unwrap_or_else(|| panic!("no line for {route}: {requests:?}"))
    };
    let uploaded = of("/v1/files");
    assert_eq!(uploaded["request.id"], "request-1");
    assert_eq!(uploaded["http.method"], "POST");
    assert_eq!(uploaded["http.status"], 202);
    assert_eq!(uploaded["id"], id);
    assert_eq!(uploaded["bytes_in"], 10);
    assert_eq!(uploaded["owner"], "media");
    assert_eq!(uploaded["client"], "192.0.2.7");
    assert_eq!(uploaded["aborted"], false);
    assert!(
        uploaded["ms"].as_f64().is_some_and(|ms| ms > 0.0),
        "{uploaded}"
    );
    let downloaded = of("/v1/files/{id}/content");
    assert_eq!(downloaded["bytes_out"], 10);
    assert_eq!(downloaded["id"], id);
    assert_eq!(downloaded["aborted"], false);
    assert_eq!(of("none")["http.status"], 404);
    assert!(process.terminate().await.success());

    let text = std::fs::read_to_string(&log).expect("a log");
    for hidden in [
        &token,
        "private-name",
        "secret=abc",
        "hidden-path",
        "{ ",
        "Some(",
    ] {
        assert!(!text.contains(hidden), "{hidden}: {text}");
    }
    for line in lines(&log) {
        for absent in ["span", "spans", "fields"] {
            assert!(line.get(absent).is_none(), "{line}");
        }
        assert_eq!(line["pid"], lines(&log)[0]["pid"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_is_given_up_is_logged_as_aborted() {
    let mut installation = Installation::new();
    for (key, value) in [("format", "json"), ("level", "info"), ("access", "true")] {
        installation.set(&format!("log.{key}"), value);
    }
    let log = log_of(&installation);
    let mut process = Process::logging_to(&log, &["up"], &installation.environment()).await;
    let client = reqwest::Client::new();
    let size = 64 * 1024 * 1024;
    let upload = client
        .post(format!("{}/v1/files?filename=large", process.url))
        .body(vec![7; size]);
    let file = json(upload.send().await.expect("a response"), 202).await;
    let id = file["id"].as_str().expect("an id");
    let wait = client.get(format!("{}/v1/files/{id}?wait=20", process.url));
    let file = json(wait.send().await.expect("a response"), 200).await;
    assert_eq!(file["status"], "stored");
    let address = process.url.trim_start_matches("http://");
    let mut socket = TcpStream::connect(address).await.expect("a connection");
    let request = format!("GET /v1/files/{id}/content HTTP/1.1\r\nHost: localhost\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut socket, request.as_bytes())
        .await
        .expect("sent");
    socket
        .read_exact(&mut [0; 1000])
        .await
        .expect("a beginning");
    drop(socket);
    let requests = logged(&log, "request", 3).await;
    let download = requests
        .iter()
        .find(|line| line["http.route"] == "/v1/files/{id}/content")
        .expect("the download");
    assert_eq!(download["aborted"], true, "{download}");
    assert!(
        download["bytes_out"]
            .as_u64()
            .is_some_and(|sent| sent < size as u64),
        "{download}"
    );
    assert!(process.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn an_outage_of_the_database_is_one_line() {
    let postgres = PostgresServer::start(Durability::Off).await;
    let mut installation = Installation::new();
    installation.set("database.url", &postgres.create_database().await);
    installation.set("log.format", "json");
    installation.set("log.level", "info");
    installation.set("sweep.interval", "1s");
    let log = log_of(&installation);
    let migrated = command(&["migrate", "up"], &installation.environment())
        .status()
        .await;
    assert!(migrated.expect("landfall runs").success());
    let mut process = Process::logging_to(&log, &["up"], &installation.environment()).await;
    let url = format!("{}/v1/files?filename=a", process.url);
    let client = reqwest::Client::new();
    let upload = async || {
        let sent = client.post(&url).body("bytes").send().await;
        sent.expect("a response").status().as_u16()
    };
    assert_eq!(upload().await, 202);
    postgres.stop().await;
    let began = logged(&log, "the database cannot be reached", 1).await;
    let mut refused = 0;
    for _ in 0..30 {
        refused += usize::from(upload().await == 503);
        let metrics = client.get(format!("{}/metrics", process.url)).send().await;
        assert_eq!(metrics.expect("a response").status(), 200);
    }
    assert_eq!(refused, 30, "the outage really happened");
    let cause = began[0]["error"].as_str().expect("a cause");
    assert!(cause.contains("database"), "{cause}");
    postgres.start_again().await;
    logged(&log, "the database can be used again", 1).await;
    wait_until(SOON, async || match upload().await {
        202 => Ok(()),
        status => Err(status.to_string()),
    })
    .await;
    process.signal(Signal::TERM);
    assert!(process.ends_within(SOON).await.success());
    let is_of_outage =
        |line: &Value| ["WARN", "ERROR"].contains(&line["level"].as_str().unwrap_or(""));
    let mut lines = lines(&log);
    lines.retain(|line| {
        is_of_outage(line) && line["target"] != "landfall::api::connection::admission"
    });
    // Besides the outage: the checks of /readyz that failed, and calls that were in progress when it began.
    assert!(lines.len() <= 8, "{} lines: {lines:#?}", lines.len());
    assert_eq!(
        with_message(&log, "the database cannot be reached").len(),
        1
    );
    assert_eq!(
        with_message(&log, "the database can be used again").len(),
        1
    );
}
