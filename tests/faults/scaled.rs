//! The topology of compose.yaml as plain processes, under load, while workers are killed.

use super::cluster::Cluster;
use crate::support::{Installation, Process};
use entity::file::FileStatus;
use futures::TryStreamExt;
use landfall_core::files;
use landfall_test_servers::{S3Server, wait_until};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio_util::sync::CancellationToken;

const SMALL_FILES: usize = 2000;
const LARGE_FILES: usize = 20;
const LARGE: usize = 64 * 1024 * 1024;
const CLIENTS: usize = 16;
const WITHIN: Duration = Duration::from_secs(600);

/// A seed of one's own runs the same again: LANDFALL_TEST_SEED.
fn seed() -> u64 {
    let given = std::env::var("LANDFALL_TEST_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    given.unwrap_or_else(rand::random)
}

fn content(number: usize, random: &mut StdRng) -> Vec<u8> {
    let size = if number < LARGE_FILES {
        LARGE
    } else {
        random.random_range(1024..=64 * 1024)
    };
    let mut bytes = vec![u8::try_from(number % 251).expect("below 251"); size];
    random.fill(&mut bytes[..64]);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn five_processes_under_load_with_workers_killed_keep_every_invariant() {
    let seed = seed();
    println!("LANDFALL_TEST_SEED={seed}");
    let s3 = S3Server::start().await;
    let mut installation = Installation::new();
    installation.on_postgres().await;
    installation.store_in(&s3);
    let cluster = Arc::new(Cluster::start(installation).await);
    cluster.webhook().await;
    let second = Process::listening(&["serve"], &cluster.installation.environment()).await;
    let urls = [cluster.api.url.clone(), second.url.clone()];

    let done = CancellationToken::new();
    let killer = tokio::spawn(kill_and_restart(cluster.clone(), seed, done.clone()));
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = Vec::new();
    for client in 0..CLIENTS {
        let (url, next, http) = (
            urls[client % 2].clone(),
            next.clone(),
            cluster.client.clone(),
        );
        clients.push(tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::SeqCst);
                if number >= SMALL_FILES + LARGE_FILES {
                    return acknowledged;
                }
                let mut random = StdRng::seed_from_u64(seed.wrapping_add(number as u64));
                let request = http
                    .post(format!("{url}/v1/files"))
                    .query(&[("filename", format!("{number}.bin"))]);
                let answer = request
                    .body(content(number, &mut random))
                    .send()
                    .await
                    .expect("an answer");
                assert_eq!(
                    answer.status(),
                    202,
                    "seed {seed}: {:?}",
                    answer.text().await
                );
                let file: serde_json::Value = answer.json().await.expect("a File");
                acknowledged.push(file["id"].as_str().expect("an id").to_owned());
            }
        }));
    }
    let mut acknowledged = Vec::new();
    for client in clients {
        acknowledged.extend(client.await.expect("a client ends without a panic"));
    }
    // A large file may be killed three times and fail as poison; it must not be lost.
    wait_until(WITHIN, async || {
        let moving = [FileStatus::Staged, FileStatus::Finalizing];
        let counts = files::counts_by_status(cluster.parts.landfall.db.read(), &moving).await;
        let left: u64 = counts.map_err(|error| error.to_string())?.values().sum();
        if left == 0 {
            Ok(())
        } else {
            Err(format!("seed {seed}: {left} files are not final"))
        }
    })
    .await;
    done.cancel();
    let (kills, _workers) = killer.await.expect("the killer ends without a panic");
    println!(
        "{kills} kills, {} requests for {} files",
        cluster.receiver.requests().len(),
        acknowledged.len()
    );
    cluster.check(&acknowledged, kills).await;
    // A killed worker's multipart upload is left alone for the grace period: another might still be writing to it.
    let landfall = &cluster.parts.landfall;
    let grace = landfall.config.staging.grace;
    landfall.clock.advance(grace + Duration::from_secs(60));
    let swept = landfall_core::sweep::sweep(landfall).await;
    swept.expect("the sweep runs");
    let staged: Vec<_> = landfall.staging.list().try_collect().await.expect("a list");
    let staged = staged.concat();
    assert!(staged.is_empty(), "I5: left in staging: {staged:?}");
    let open = s3.open_multipart_uploads();
    assert!(open.is_empty(), "I5: open multipart uploads: {open:?}");
}

/// Keeps three workers running and kills one of them every second or so.
async fn kill_and_restart(
    cluster: Arc<Cluster>,
    seed: u64,
    done: CancellationToken,
) -> (usize, Vec<Process>) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut workers = vec![
        cluster.worker(None),
        cluster.worker(None),
        cluster.worker(None),
    ];
    let mut kills = 0;
    loop {
        let pause = Duration::from_millis(random.random_range(500..2500));
        if tokio::time::timeout(pause, done.cancelled()).await.is_ok() {
            return (kills, workers);
        }
        let victim = random.random_range(0..workers.len());
        workers[victim].kill().await;
        workers[victim] = cluster.worker(None);
        kills += 1;
    }
}
