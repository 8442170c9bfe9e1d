use std::time::{Duration, Instant};

use landfall_test_servers::{RedisServer, wait_until};
use redis::{Commands, Connection, RedisError};

const SOON: Duration = Duration::from_secs(10);

fn connect(server: &RedisServer) -> Result<Connection, RedisError> {
    redis::Client::open(server.url())?.get_connection_with_timeout(SOON)
}

fn set(server: &RedisServer, key: &str) {
    connect(server)
        .unwrap()
        .set::<_, _, ()>(key, "value")
        .unwrap();
}

fn get(server: &RedisServer, key: &str) -> Option<String> {
    connect(server).unwrap().get(key).unwrap()
}

#[tokio::test]
async fn restarted_server_keeps_its_port_and_forgets_its_keys() {
    let server = RedisServer::start().await;
    let (url, pid) = (server.url(), server.pid());
    set(&server, "key");
    server.restart().await;
    assert_eq!(server.url(), url);
    assert_ne!(server.pid(), pid);
    assert_eq!(get(&server, "key"), None);
}

#[tokio::test]
async fn append_only_server_remembers_after_a_kill() {
    let server = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    set(&server, "key");
    server.kill().await;
    server.start_again().await;
    assert_eq!(get(&server, "key").as_deref(), Some("value"));
}

#[tokio::test]
async fn stopped_server_refuses_connections() {
    let server = RedisServer::start().await;
    server.stop().await;
    assert!(connect(&server).is_err());
    server.start_again().await;
    assert!(connect(&server).is_ok());
}

#[tokio::test]
async fn flush_all_empties_it() {
    let server = RedisServer::start().await;
    set(&server, "key");
    server.flush_all().await;
    assert_eq!(get(&server, "key"), None);
}

#[tokio::test]
async fn paused_server_answers_late() {
    let server = RedisServer::start().await;
    let mut connection = connect(&server).unwrap();
    server.pause(Duration::from_millis(400)).await;
    let started = Instant::now();
    connection.set::<_, _, ()>("key", "value").unwrap();
    assert!(
        started.elapsed() >= Duration::from_millis(300),
        "took {:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn frozen_server_answers_after_the_thaw() {
    let server = RedisServer::start().await;
    let mut connection = connect(&server).unwrap();
    connection
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    server.freeze();
    assert!(connection.set::<_, _, ()>("key", "value").is_err());
    server.thaw();
    wait_until(SOON, async || connect(&server).is_ok()).await;
}

#[tokio::test]
async fn dropped_connection_is_closed() {
    let server = RedisServer::start().await;
    let mut connection = connect(&server).unwrap();
    server.drop_connections().await;
    assert!(connection.get::<_, Option<String>>("key").is_err());
}

#[tokio::test]
async fn out_of_memory_refuses_writes() {
    let server = RedisServer::start().await;
    server.set_config("maxmemory", "1").await;
    let answer = connect(&server).unwrap().set::<_, _, ()>("key", "value");
    assert!(answer.unwrap_err().to_string().contains("OOM"));
}

#[tokio::test]
async fn cluster_of_one_takes_every_key() {
    let server = RedisServer::start_cluster().await;
    let client = redis::cluster::ClusterClient::new(vec![server.url()]).unwrap();
    let mut connection = client.get_async_connection().await.unwrap();
    for key in ["a", "b", "{tag}:c"] {
        redis::AsyncCommands::set::<_, _, ()>(&mut connection, key, key)
            .await
            .unwrap();
    }
}

#[test]
fn shared_server_is_one_server() {
    let url = RedisServer::shared();
    assert_eq!(url, RedisServer::shared());
    redis::Client::open(url).unwrap().get_connection().unwrap();
}

#[tokio::test]
async fn dropped_server_is_gone() {
    let server = RedisServer::start().await;
    let url = server.url();
    drop(server);
    assert!(redis::Client::open(url).unwrap().get_connection().is_err());
}
