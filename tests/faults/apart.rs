//! Processes that do not share staging: the second one refuses to start, and says why.

use crate::support::{Installation, Process, process::command};
use landfall_core::db::Database;
use landfall_test_servers::S3Server;
use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_secs(40);

async fn migrated(installation: &Installation) {
    let config = installation.config();
    let db = Database::open(&config.database.url, 2)
        .await
        .expect("a database");
    db.migrate_up().await.expect("migrations");
}

/// The installation's settings on a machine with a staging folder of its own.
fn elsewhere(installation: &Installation) -> Vec<(String, String)> {
    let mut environment = installation.environment();
    let path = installation
        .folder()
        .join("elsewhere")
        .display()
        .to_string();
    environment.push(("LANDFALL__STAGING__PATH".to_owned(), path));
    environment
}

/// Returns the error of a process that refuses to start.
async fn refusal(arguments: &[&str], environment: &[(String, String)]) -> String {
    let mut command = command(arguments, environment);
    let output = tokio::time::timeout(WITHIN, command.kill_on_drop(true).output()).await;
    let output = output.expect("it ends in time").expect("landfall starts");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
async fn worker_that_does_not_see_the_staging_of_the_api_does_not_start() {
    let installation = Installation::new();
    migrated(&installation).await;
    let own = installation.environment();
    let _api = Process::listening(&["serve"], &own).await;
    let said = refusal(&["worker"], &elsewhere(&installation)).await;
    assert!(said.contains("staging is not shared"), "{said}");
    for named in [
        "staging.path",
        "staging.backend",
        "elsewhere",
        "data/staging",
    ] {
        assert!(said.contains(named), "{named}: {said}");
    }
    let said = refusal(&["serve"], &elsewhere(&installation)).await;
    assert!(said.contains("staging is not shared"), "{said}");
    // Deliveries need no staging.
    let mut deliverer = Process::spawn(
        &["worker", "--queues", "deliver"],
        &elsewhere(&installation),
    );
    let mut worker = Process::spawn(&["worker"], &own);
    let second = Process::listening(&["serve"], &own).await;
    assert!(!second.url.is_empty());
    assert!(worker.is_running() && deliverer.is_running());
    assert!(worker.terminate().await.success());
    assert!(deliverer.terminate().await.success());
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn folder_and_bucket_are_not_one_staging() {
    let s3 = S3Server::start().await;
    let mut installation = Installation::new();
    installation.on_postgres().await;
    installation.store_in(&s3);
    let in_a_folder = installation.environment();
    installation.set("staging.backend", "s3");
    let _api = Process::listening(&["serve"], &installation.environment()).await;
    let said = refusal(&["worker"], &in_a_folder).await;
    assert!(said.contains("staging is not shared"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_process_does_not_prevent_a_new_folder() {
    let installation = Installation::new();
    migrated(&installation).await;
    let mut killed = Process::listening(&["serve"], &installation.environment()).await;
    killed.kill().await;
    let asked = Instant::now();
    let mut moved = Process::listening(&["serve"], &elsewhere(&installation)).await;
    assert!(asked.elapsed() < WITHIN);
    assert!(moved.terminate().await.success());
    // That one ended well, and left nothing to wait for.
    let staging = installation.folder().join("elsewhere");
    let names = std::fs::read_dir(staging).expect("a folder");
    let names = names.map(|entry| entry.expect("an entry").file_name());
    let probes = names.filter(|name| name.to_string_lossy().starts_with("probe-"));
    assert_eq!(probes.count(), 0);
    let asked = Instant::now();
    let _back = Process::listening(&["serve"], &installation.environment()).await;
    assert!(asked.elapsed() < Duration::from_secs(10));
}
