//! The topology of compose.yaml as plain processes, under load, while workers are killed.

use super::cluster::Cluster;
use crate::support::{Installation, Process, seed};
use landfall_test_servers::S3Server;
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

const KILLS: usize = 20;

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
#[cfg_attr(
    not(feature = "every-server"),
    ignore = "needs PostgreSQL: scripts/test runs it"
)]
async fn five_processes_under_load_with_workers_killed_keep_every_invariant() {
    let seed = seed();
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
        let (url, next) = (urls[client % 2].clone(), next.clone());
        let cluster = Arc::clone(&cluster);
        clients.push(tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::SeqCst);
                if number >= SMALL_FILES + LARGE_FILES {
                    return;
                }
                let mut random = StdRng::seed_from_u64(seed.wrapping_add(number as u64));
                let content = content(number, &mut random);
                let name = format!("{number}.bin");
                cluster.upload_at(&url, &name, content).await;
            }
        }));
    }
    for client in clients {
        client.await.expect("a client ends without a panic");
    }
    let files = SMALL_FILES + LARGE_FILES;
    assert_eq!(cluster.log.len(), files, "seed {seed}");
    done.cancel();
    let (kills, _workers) = killer.await.expect("the killer ends without a panic");
    println!("seed {seed}: {kills} kills for {files} files");
    cluster
        .invariants()
        .after(kills)
        .within(WITHIN)
        .hold()
        .await;
}

/// Keeps three workers running and kills one of them about every second, until told to stop and at least often enough
/// to hit some transfers.
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
        tokio::time::sleep(pause).await;
        if done.is_cancelled() && kills >= KILLS {
            return (kills, workers);
        }
        let victim = random.random_range(0..workers.len());
        workers[victim].kill().await;
        workers[victim] = cluster.worker(None);
        kills += 1;
    }
}
