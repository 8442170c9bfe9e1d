//! `landfall check`, and what else a wrong setting stops.

use super::configured;
use crate::support::Installation;
use landfall_test_servers::{RedisServer, S3Server};
use serde_json::Value;

/// The checks that failed, and why.
async fn failed(installation: &Installation) -> Vec<(String, String)> {
    let ran = configured(installation, &["check", "--json"]).await;
    assert_eq!((ran.status, ran.stderr.as_str()), (1, ""), "{ran:?}");
    let checks: Vec<Value> = serde_json::from_str(&ran.stdout).expect("a list");
    let text = |check: &Value, field: &str| check[field].as_str().expect("text").to_owned();
    let failed = checks.iter().filter(|check| check["ok"] == false);
    failed
        .map(|check| (text(check, "name"), text(check, "detail")))
        .collect()
}

/// With a database that is current.
async fn migrated() -> Installation {
    let installation = Installation::new();
    configured(&installation, &["migrate", "up"]).await.done();
    installation
}

#[tokio::test(flavor = "multi_thread")]
async fn database_that_lacks_migrations_fails_the_check() {
    let installation = migrated().await;
    configured(&installation, &["migrate", "down", "--yes"])
        .await
        .done();
    let found = failed(&installation).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].0 == "database" && found[0].1.contains("landfall migrate up"),
        "{found:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_working_dependency_is_used_and_named() {
    let mut installation = migrated().await;
    for embedded in [false, true] {
        if embedded {
            installation.unset_raw("LANDFALL__REDIS__URL");
        }
        let said = configured(&installation, &["check"]).await.done();
        for name in ["configuration", "database", "redis", "storage", "staging"] {
            let line = said
                .lines()
                .find(|line| line.starts_with(&format!("ok      {name}: ")));
            assert!(line.is_some(), "{name}: {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_broken_dependency_is_one_message() {
    let mut installation = Installation::new();
    installation.set("database.url", "postgres://nobody@127.0.0.1:9/nowhere");
    let found = failed(&installation).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, "database");
    assert!(found[0].1.contains("database.url"), "{found:?}");

    let mut installation = migrated().await;
    installation.set("redis.url", "redis://127.0.0.1:9");
    let found = failed(&installation).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(
        found[0].0 == "redis" && found[0].1.contains("Redis does not respond"),
        "{found:?}"
    );

    let occupied = Installation::new();
    let file = occupied.folder().join("a file");
    std::fs::write(&file, "no folder").expect("a file");
    for part in ["storage", "staging"] {
        let mut installation = migrated().await;
        installation.set(&format!("{part}.path"), &file.display().to_string());
        let found = failed(&installation).await;
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, part);
        assert!(
            found[0].1.contains("a file"),
            "the path is named: {found:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bucket_errors_name_the_setting() {
    let s3 = S3Server::start().await;
    for (name, wrong) in [
        ("AWS_STORAGE_BUCKET_NAME", "no-such-bucket"),
        ("AWS_SECRET_ACCESS_KEY", "not-the-secret"),
        ("AWS_S3_ENDPOINT_URL", "http://127.0.0.1:9"),
    ] {
        let mut installation = migrated().await;
        installation.store_in(&s3);
        installation.set_raw(name, wrong);
        let found = failed(&installation).await;
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].0 == "storage" && found[0].1.contains(name),
            "{found:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_and_unknown_settings_are_named_all_at_once() {
    let mut installation = Installation::new();
    let file = installation.folder().join("mine.toml");
    let settings = "[sweep]\ninterval = \"soon\"\n[uploads]\nmax_file_siz = \"1GiB\"\n";
    std::fs::write(&file, settings).expect("a file");
    installation.set_raw("LANDFALL_CONFIG", &file.display().to_string());
    installation.set("workers.lease", "1s");
    installation.set("storage.backend", "tape");
    installation.set_raw("LANDFALL__SERVER__PORT", "80");
    for arguments in [
        ["up"].as_slice(),
        &["serve"],
        &["worker"],
        &["check"],
        &["migrate", "up"],
    ] {
        let told = configured(&installation, arguments).await.failed();
        for key in [
            "sweep.interval",
            "uploads.max_file_siz",
            "workers.lease",
            "storage.backend",
        ] {
            assert!(told.contains(key), "{arguments:?}: {key}: {told}");
        }
        let unknown = told.contains("server.port") || told.contains("LANDFALL__SERVER__PORT");
        assert!(unknown, "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_without_tokens_requires_a_loopback_address() {
    let mut installation = Installation::new();
    installation.set("server.bind", "0.0.0.0:0");
    for arguments in [["up"].as_slice(), &["serve"]] {
        let told = configured(&installation, arguments).await.failed();
        assert!(told.contains("auth.mode"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_that_may_evict_jobs_causes_a_warning() {
    let server = RedisServer::start().await;
    let mut installation = migrated().await;
    installation.set("redis.url", &server.url());
    let said = configured(&installation, &["check"]).await.done();
    assert!(!said.contains("WARNING"), "{said}");
    server.set_config("maxmemory-policy", "volatile-lru").await;
    let said = configured(&installation, &["check"]).await.done();
    let line = said
        .lines()
        .find(|line| line.starts_with("ok      redis: "));
    let line = line.expect("Redis is fine otherwise");
    assert!(
        line.contains("WARNING") && line.contains("volatile-lru") && line.contains("noeviction"),
        "{line}"
    );
}
