//! Uploads over two API nodes, which are killed while the bytes arrive.

use super::topology::Topology;
use crate::support::seed;
use futures::{StreamExt, stream};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::{Body, Method};
use serde_json::{Value, json};
use std::sync::{Arc, atomic::Ordering};
use tokio_util::sync::CancellationToken;

const MIB: usize = 1024 * 1024;
const PART: usize = 4 * MIB;
const CONNECTIONS: usize = 8;
const SIZE: usize = 512 * MIB;
/// Each kill that hits a request costs the lease of the dead writer.
const TUS_SIZE: usize = 64 * MIB;
/// What one connection carries in a second, so that there is time to be killed.
const PART_RATE: usize = 4 * MIB;
const TUS_RATE: usize = 16 * MIB;

/// No two mebibytes are the same. Random numbers for all of them would take longer than the upload.
fn content(seed: u64, size: usize) -> Vec<u8> {
    let mut block = vec![0; MIB];
    StdRng::seed_from_u64(seed).fill(&mut block[..]);
    let mut bytes = Vec::with_capacity(size);
    for number in 0..size / MIB {
        block[..8].copy_from_slice(&number.to_be_bytes());
        bytes.extend_from_slice(&block);
    }
    bytes
}

fn is_received(session: &Value, number: usize) -> bool {
    let runs = session["received_parts"].as_str().expect("ranges");
    runs.split(',').filter(|run| !run.is_empty()).any(|run| {
        let (first, last) = run.split_once('-').unwrap_or((run, run));
        (first.parse().expect("a number")..=last.parse().expect("a number")).contains(&number)
    })
}

/// Sends a part until it counts; a counted part whose response was lost is not sent again.
async fn send_part(topology: &Arc<Topology>, session: &str, number: usize, bytes: Vec<u8>) {
    let path = format!("{session}/parts/{number}");
    loop {
        let request = topology.request(Method::PUT, &path).await;
        let body = Body::wrap_stream(topology.slowly(bytes.clone(), PART_RATE));
        let request = request.header("Content-Length", bytes.len()).body(body);
        if let Ok(response) = request.send().await {
            match response.status().as_u16() {
                200 => return,
                409 | 503 => {}
                _ => panic!("{number}: {:?}", response.text().await),
            }
        }
        let known = topology.json(Method::GET, session, None).await;
        if is_received(&known, number) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn upload_in_parts_over_two_nodes_that_are_killed_is_stored_and_hardly_sent_twice() {
    let seed = seed();
    let topology = Arc::new(Topology::start().await);
    let bytes = Arc::new(content(seed, SIZE));
    let asked = json!({
        "original_filename": "parts.bin", "total_size_bytes": SIZE, "chunk_size_bytes": PART,
    });
    let begun = topology
        .json(Method::POST, "/v1/uploads", Some(asked))
        .await;
    let session = format!("/v1/uploads/{}", begun["id"].as_str().expect("an id"));
    let done = CancellationToken::new();
    let killer = tokio::spawn(Arc::clone(&topology).kill_and_restart(seed, done.clone()));
    stream::iter(1..=SIZE / PART)
        .map(|number| {
            let (topology, bytes) = (Arc::clone(&topology), Arc::clone(&bytes));
            let session = session.clone();
            tokio::spawn(async move {
                let part = bytes[(number - 1) * PART..number * PART].to_vec();
                send_part(&topology, &session, number, part).await;
            })
        })
        .buffer_unordered(CONNECTIONS)
        .for_each(|sent| async { sent.expect("a part is taken in") })
        .await;
    let file = topology
        .json(Method::POST, &format!("{session}/complete"), None)
        .await;
    done.cancel();
    let kills = killer.await.expect("the killer ends without a panic");
    let twice = topology.sent.load(Ordering::SeqCst) - SIZE;
    println!("{kills} kills, {twice} of {SIZE} bytes sent twice");
    assert!(kills > 1, "nobody was killed");
    assert!(
        twice <= kills * CONNECTIONS * PART,
        "{twice} bytes sent twice"
    );
    topology
        .ends_well(file["id"].as_str().expect("an id"), &bytes)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn tus_upload_over_two_nodes_that_are_killed_is_stored_and_hardly_sent_twice() {
    let seed = seed();
    let topology = Arc::new(Topology::start().await);
    let bytes = content(seed, TUS_SIZE);
    let post = topology.request(Method::POST, "/v1/tus").await;
    let post = post.header("Upload-Length", bytes.len()).send().await;
    let post = post.expect("a response");
    let path = post.headers()["location"]
        .to_str()
        .expect("text")
        .to_owned();
    let done = CancellationToken::new();
    let killer = tokio::spawn(Arc::clone(&topology).kill_and_restart(seed, done.clone()));
    loop {
        let head = topology.ask(Method::HEAD, &path, None).await;
        assert_eq!(head.status(), 200, "{head:?}");
        let offset = head.headers()["upload-offset"].to_str().expect("text");
        let offset: usize = offset.parse().expect("a number");
        if offset == bytes.len() {
            break;
        }
        let piece = bytes[offset..bytes.len().min(offset + PART)].to_vec();
        let patch = topology.request(Method::PATCH, &path).await;
        let patch = patch
            .header("Upload-Offset", offset)
            .header("Content-Type", "application/offset+octet-stream")
            .header("Content-Length", piece.len())
            .body(Body::wrap_stream(topology.slowly(piece, TUS_RATE)));
        if let Ok(response) = patch.send().await {
            let status = response.status().as_u16();
            assert!([204, 409, 423, 503].contains(&status), "{response:?}");
        }
        // The other node gets the next request: a HEAD and a PATCH took one turn each.
        topology.skip_turn();
    }
    done.cancel();
    let kills = killer.await.expect("the killer ends without a panic");
    let twice = topology.sent.load(Ordering::SeqCst) - bytes.len();
    println!("{kills} kills, {twice} of {} bytes sent twice", bytes.len());
    assert!(kills > 1, "nobody was killed");
    assert!(twice <= kills * PART, "{twice} bytes sent twice");
    let id = path.rsplit('/').next().expect("an id");
    topology.ends_well(id, &bytes).await;
}
