//! Two PATCHes at one offset whose bodies end at the same time: one counts, and the other gets a conflict.

use super::OFFSET_STREAM;
use crate::support::{Installation, Process};
use futures::future::join_all;
use landfall_core::db::Database;
use reqwest::{Client, Method, RequestBuilder};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const ROUNDS: usize = 100;
const PIECE: usize = 1000;

/// Two racers wait for each other for a moment.
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);

/// A connection on which all of a PATCH is sent but its last byte.
async fn all_but_the_last(api: &Process, path: &str, at: usize, byte: u8) -> TcpStream {
    let address = api.url.strip_prefix("http://").expect("an address");
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    let mut request = format!(
        "PATCH {path} HTTP/1.1\r\nHost: {address}\r\nTus-Resumable: 1.0.0\r\nConnection: close\r\n\
         Content-Type: {OFFSET_STREAM}\r\nUpload-Offset: {at}\r\nContent-Length: {PIECE}\r\n\r\n"
    )
    .into_bytes();
    request.resize(request.len() + PIECE - 1, byte);
    stream.write_all(&request).await.expect("a request");
    stream
}

async fn ended(mut stream: TcpStream, byte: u8) -> u16 {
    stream.write_all(&[byte]).await.expect("the last byte");
    let mut response = Vec::new();
    let read = timeout(ANSWERED_WITHIN, stream.read_to_end(&mut response)).await;
    read.expect("an answer in time").expect("a response");
    let response = String::from_utf8_lossy(&response);
    let status = response
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    status
        .and_then(|status| status.parse().ok())
        .expect("a status")
}

fn tus(api: &Process, method: Method, path: &str) -> RequestBuilder {
    let request = Client::new().request(method, format!("{}{path}", api.url));
    request.header("Tus-Resumable", "1.0.0")
}

/// Each racer sends different bytes, so that the file shows whose were accepted.
async fn one_of_two_counts_each_time(installation: Installation, nodes: usize) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let db = Database::open(&installation.config().database.url, 2).await;
    db.expect("a database")
        .migrate_up()
        .await
        .expect("migrations");
    let mut apis = Vec::new();
    for _ in 0..nodes {
        apis.push(Process::listening(&["serve"], &installation.environment()).await);
    }
    let racers = [(&apis[0], b'a'), (&apis[nodes - 1], b'b')];
    let begun = tus(&apis[0], Method::POST, "/v1/tus").header("Upload-Length", ROUNDS * PIECE);
    let begun = begun.send().await.expect("a response");
    let path = begun.headers()["location"]
        .to_str()
        .expect("text")
        .to_owned();
    let mut expected = Vec::new();
    for round in 0..ROUNDS {
        let begun = racers.map(|(api, byte)| all_but_the_last(api, &path, round * PIECE, byte));
        let streams = join_all(begun).await.into_iter().zip([b'a', b'b']);
        let answers = join_all(streams.map(|(stream, byte)| ended(stream, byte))).await;
        let winner = match answers[..] {
            [204, 409] => b'a',
            [409, 204] => b'b',
            _ => panic!("round {round}: {answers:?}"),
        };
        expected.resize(expected.len() + PIECE, winner);
    }
    for api in &apis {
        let bytes = tus(api, Method::GET, &path)
            .send()
            .await
            .expect("a response");
        assert_eq!(bytes.status(), 200);
        assert!(bytes.bytes().await.expect("a body") == expected);
    }
}

async fn on_postgres() -> Installation {
    let mut installation = Installation::new();
    installation.on_postgres().await;
    installation
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_patches_counts_each_time_on_one_node_over_sqlite() {
    one_of_two_counts_each_time(Installation::new(), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_patches_counts_each_time_on_two_nodes_over_sqlite() {
    one_of_two_counts_each_time(Installation::new(), 2).await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn one_of_two_patches_counts_each_time_on_one_node_over_postgres() {
    one_of_two_counts_each_time(on_postgres().await, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn one_of_two_patches_counts_each_time_on_two_nodes_over_postgres() {
    one_of_two_counts_each_time(on_postgres().await, 2).await;
}
