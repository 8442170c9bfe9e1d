//! PostgreSQL behind pgbouncer in transaction mode: nothing fails, and nothing leaks to other clients of the pool.

use crate::support::{Installation, Process, app::SOON, process::command};
use landfall_core::db::{Database, Pooling};
use landfall_test_servers::{Durability, PgBouncer, PostgresServer, Receiver, wait_until};
use reqwest::Client;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const CLIENTS: usize = 8;
const FILES: usize = 25;

async fn pooling(url: &str) -> Pooling {
    let db = Database::open(&url.to_owned().into(), 4).await;
    db.expect("the database opens").pooling()
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL and pgbouncer: scripts/test runs it"
)]
async fn a_pooler_in_transaction_mode_is_found_out() {
    let postgres = PostgresServer::start(Durability::Off).await;
    let database = postgres.create_database().await;
    assert_eq!(pooling(&database).await, Pooling::Direct);
    let session = PgBouncer::start(&postgres, "session").await;
    assert_eq!(pooling(&session.url_of(&database)).await, Pooling::Direct);
    let transaction = PgBouncer::start(&postgres, "transaction").await;
    let url = transaction.url_of(&database);
    assert_ne!(
        pooling(&url).await,
        Pooling::Direct,
        "{}",
        transaction.log()
    );

    let mut installation = Installation::new();
    installation.set("database.url", &url);
    let run = async |arguments: &[&str], installation: &Installation| {
        let output = command(arguments, &installation.environment())
            .output()
            .await;
        let output = output.expect("landfall runs");
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    };
    let (migrated, text) = run(&["migrate", "up"], &installation).await;
    assert!(
        !migrated && text.contains("connection pooler in transaction mode"),
        "{text}"
    );
    installation.set("database.url", &database);
    let (migrated, text) = run(&["migrate", "up"], &installation).await;
    assert!(migrated, "{text}");
    installation.set("database.url", &url);
    let (migrated, text) = run(&["migrate", "up"], &installation).await;
    assert!(migrated, "nothing is missing: {text}");
    let (checked, text) = run(&["check"], &installation).await;
    assert!(
        checked && text.contains("through a connection pooler in transaction mode"),
        "{text}"
    );
}

async fn upload(client: &Client, base: &str, number: usize) -> (String, Value) {
    let url = format!("{base}/v1/files?filename={number}.bin");
    let request = client.post(url).body(format!("the bytes of {number}"));
    let response = request.send().await.expect("a response");
    let status = response.status();
    let text = response.text().await.expect("a body");
    assert_eq!(status, 202, "{text}");
    let file: Value = serde_json::from_str(&text).expect("a File");
    (file["id"].as_str().expect("an id").to_owned(), file)
}

async fn by_parts(client: &Client, base: &str) -> String {
    let new = json!({ "original_filename": "parts.bin", "total_size_bytes": 100_000, "chunk_size_bytes": 65_536 });
    let session = client
        .post(format!("{base}/v1/uploads"))
        .json(&new)
        .send()
        .await;
    let session = session.expect("a response");
    assert_eq!(session.status(), 201);
    let session: Value = session.json().await.expect("a Session");
    let id = session["id"].as_str().expect("an id");
    for (part, size) in [(1, 65_536), (2, 34_464)] {
        let put = client.put(format!("{base}/v1/uploads/{id}/parts/{part}"));
        let put = put.body(vec![7; size]).send().await.expect("a response");
        assert_eq!(put.status(), 200, "{:?}", put.text().await);
    }
    let complete = client.post(format!("{base}/v1/uploads/{id}/complete"));
    let complete = complete.send().await.expect("a response");
    assert_eq!(complete.status(), 202, "{:?}", complete.text().await);
    session["file_id"].as_str().expect("an id").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL and pgbouncer: scripts/test runs it"
)]
async fn every_file_is_stored_and_announced_through_a_pooler() {
    let postgres = PostgresServer::start(Durability::Off).await;
    let database = postgres.create_database().await;
    let pgbouncer = PgBouncer::start(&postgres, "transaction").await;
    let mut installation = Installation::new();
    installation.set("database.url", &database);
    let migrated = command(&["migrate", "up"], &installation.environment())
        .status()
        .await;
    assert!(migrated.expect("landfall runs").success());
    installation.set("database.url", &pgbouncer.url_of(&database));
    installation.set("sweep.interval", "1s");
    let environment = installation.environment();
    let mut api = Process::listening(&["serve"], &environment).await;
    let mut workers = [
        Process::spawn(&["worker"], &environment),
        Process::spawn(&["worker"], &environment),
    ];
    let client = Client::new();
    let receiver = Receiver::start().await;
    let hook = client.post(format!("{}/v1/webhooks", api.url));
    let hook = hook
        .json(&json!({ "url": receiver.url("/hook") }))
        .send()
        .await;
    assert_eq!(hook.expect("a response").status(), 201);

    let base = api.url.clone();
    let uploads = (0..CLIENTS).map(|number| {
        let (client, base) = (&client, &base);
        async move {
            let mut ids = vec![by_parts(client, base).await];
            for file in 0..FILES {
                ids.push(upload(client, base, number * FILES + file).await.0);
                let list = client.get(format!("{base}/v1/files?limit=5")).send().await;
                assert_eq!(list.expect("a response").status(), 200);
            }
            ids
        }
    });
    let ids = futures::future::join_all(uploads).await;
    let ids: BTreeSet<String> = ids.into_iter().flatten().collect();
    assert_eq!(ids.len(), CLIENTS * (FILES + 1));
    for id in &ids {
        wait_until(SOON, async || {
            let file = client.get(format!("{base}/v1/files/{id}")).send().await;
            let file: Value = file.expect("a response").json().await.expect("a File");
            match file["status"].as_str() {
                Some("stored") => Ok(()),
                _ => Err(file.to_string()),
            }
        })
        .await;
    }
    receiver.wait_for(ids.len(), SOON).await;

    // Other clients of the pool find neither settings nor statements of ours.
    let settings = postgres
        .query(&pgbouncer.url_of(&database), "SHOW statement_timeout")
        .await;
    assert_eq!(settings, "0");
    for process in workers.iter_mut().chain([&mut api]) {
        assert!(process.terminate().await.success());
    }
}
