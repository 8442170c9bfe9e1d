use std::time::Duration;

use landfall_test_servers::{Durability, PostgresServer, wait_until};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn created_databases_are_empty_and_apart() {
    let server = PostgresServer::shared();
    let (one, two) = (
        server.create_database().await,
        server.create_database().await,
    );
    assert_ne!(one, two);
    server.query(&one, "CREATE TABLE t (n int)").await;
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(server.query(&one, tables).await, "1");
    assert_eq!(server.query(&two, tables).await, "0");
    server.drop_database(&one).await;
    server.drop_database(&two).await;
}

#[tokio::test]
async fn cloned_database_has_the_rows_of_its_template() {
    let server = PostgresServer::shared();
    let template = server.create_database().await;
    server
        .query(&template, "CREATE TABLE t AS SELECT 7 AS n")
        .await;
    let (one, two) = tokio::join!(
        server.clone_database(&template),
        server.clone_database(&template)
    );
    assert_eq!(server.query(&one, "SELECT n FROM t").await, "7");
    assert_eq!(server.query(&two, "SELECT n FROM t").await, "7");
    for database in [template, one, two] {
        server.drop_database(&database).await;
    }
}

#[tokio::test]
async fn killed_connections_are_counted() {
    let server = PostgresServer::shared();
    let database = server.create_database().await;
    let url = database.clone();
    // Panics with the server's reason, so in a task of its own.
    let sleeper = tokio::spawn(async move { server.query(&url, "SELECT pg_sleep(60)").await });
    wait_until(SOON, async || server.kill_connections(&database).await == 1).await;
    let reason = sleeper.await.unwrap_err().into_panic();
    let reason = reason.downcast_ref::<String>().unwrap();
    assert!(reason.contains("terminating connection"), "{reason}");
    server.drop_database(&database).await;
}

#[tokio::test]
async fn committed_rows_outlive_restart_and_crash() {
    for durability in [Durability::On, Durability::Off] {
        let server = PostgresServer::start(durability).await;
        let database = server.create_database().await;
        server
            .query(&database, "CREATE TABLE t AS SELECT 1 AS n")
            .await;
        let pid = server.pid();
        server.restart().await;
        assert_ne!(server.pid(), pid);
        server.query(&database, "INSERT INTO t VALUES (2)").await;
        server.kill().await;
        server.start_again().await;
        assert_eq!(server.query(&database, "SELECT sum(n) FROM t").await, "3");
        let fsync = if durability == Durability::On {
            "on"
        } else {
            "off"
        };
        assert_eq!(server.query(&database, "SHOW fsync").await, fsync);
    }
}
