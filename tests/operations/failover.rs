//! PostgreSQL fails over to a standby during uploads, and is reached over TLS with a certificate that is verified.

use crate::support::{TestApp, app::SOON};
use landfall_core::db::Database;
use landfall_test_servers::{Durability, PostgresServer, Relay, wait_until};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

const CLIENTS: usize = 5;
const FILES: usize = 100;

/// Uploads until accepted. Only 503 may come in between; returns how often it did.
async fn upload(app: &TestApp, bytes: &[u8]) -> (String, usize) {
    let refused = AtomicUsize::new(0);
    let id = wait_until(SOON, async || {
        let request = app.post("/v1/files?filename=a.bin").body(bytes.to_vec());
        let response = request.send().await.expect("a response");
        let status = response.status().as_u16();
        let text = response.text().await.expect("a body");
        match status {
            202 => {
                let file: Value = serde_json::from_str(&text).expect("a File");
                Ok(file["id"].as_str().expect("an id").to_owned())
            }
            503 => {
                refused.fetch_add(1, Ordering::SeqCst);
                Err(text)
            }
            other => panic!("{other}: {text}"),
        }
    })
    .await;
    (id, refused.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn every_file_is_stored_and_announced_over_a_failover() {
    let primary = PostgresServer::start(Durability::Off).await;
    let database = primary.create_database().await;
    let standby = primary.start_standby().await;
    let relay = Relay::start(primary.port()).await;
    let (_, name) = database.rsplit_once('/').expect("a database");
    let url = format!("postgres://landfall@127.0.0.1:{}/{name}", relay.port());
    let app = TestApp::builder()
        .set("database.url", &url)
        .set("sweep.interval", "1s")
        .start()
        .await;
    app.webhook("/hook", &[]).await;
    let acknowledged = Mutex::new(BTreeMap::new());
    let refused = AtomicUsize::new(0);
    let uploads = (0..CLIENTS).map(|client| {
        let (app, acknowledged, refused) = (&app, &acknowledged, &refused);
        async move {
            for file in 0..FILES {
                let bytes = format!("file {file} of client {client}").into_bytes();
                let (id, times) = upload(app, &bytes).await;
                refused.fetch_add(times, Ordering::SeqCst);
                let mut acknowledged = acknowledged.lock().expect("nobody panicked");
                acknowledged.insert(id, bytes.len());
            }
        }
    });
    let count = || acknowledged.lock().expect("nobody panicked").len();
    let failing_over = async {
        wait_until(SOON, async || (count() > CLIENTS * FILES / 4).then_some(())).await;
        primary.kill().await;
        standby.promote().await;
        relay.switch(standby.port());
        count()
    };
    let (_, before) = tokio::join!(futures::future::join_all(uploads), failing_over);
    let acknowledged = acknowledged.into_inner().expect("nobody panicked");
    assert_eq!(acknowledged.len(), CLIENTS * FILES);
    assert!(
        before < acknowledged.len(),
        "uploads went on after the failover"
    );
    assert!(
        refused.into_inner() > 0,
        "uploads were refused during the failover"
    );
    for (id, size) in &acknowledged {
        let file = app.settled(&id.as_str().into()).await;
        assert_eq!(
            (file["status"].as_str(), &file["size_bytes"]),
            (Some("stored"), &(*size).into())
        );
    }
    wait_until(SOON, async || {
        let announced = app.receiver.requests();
        let is_announced = |id: &String| {
            let sent = format!("\"file_id\":\"{id}\"");
            announced
                .iter()
                .any(|one| String::from_utf8_lossy(&one.body).contains(&sent))
        };
        match acknowledged.keys().find(|id| !is_announced(id)) {
            None => Ok(()),
            Some(id) => Err(format!("{id} was not announced")),
        }
    })
    .await;
    let recovering = standby
        .query(&standby.url(), "SELECT pg_is_in_recovery()")
        .await;
    assert_eq!(recovering, "f");
}

#[tokio::test]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn the_certificate_of_the_server_is_verified() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let postgres = PostgresServer::start_with_tls().await;
    let other = PostgresServer::start_with_tls().await;
    let database = postgres.create_database().await;
    let open = async |authority: &std::path::Path, host: &str| {
        let database = database.replace("127.0.0.1", host);
        let authority = authority.display();
        let url = format!("{database}?sslmode=verify-full&sslrootcert={authority}");
        Database::open(&url.into(), 2).await
    };
    let db = open(postgres.authority(), "localhost")
        .await
        .expect("it is trusted");
    db.migrate_up().await.expect("migrations");
    db.ping().await.expect("it responds");
    let encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE ssl AND datname = current_database()";
    assert_ne!(postgres.query(&database, encrypted).await, "0");
    let unknown = open(other.authority(), "localhost").await;
    let unknown = unknown.expect_err("the authority is another");
    let cause = std::error::Error::source(&unknown)
        .expect("a cause")
        .to_string();
    assert!(cause.contains("certificate"), "{cause}");
}
