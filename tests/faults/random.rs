//! SIGKILL at random moments, wherever the processes are just then: needs no failpoints, so it is also run against the
//! binary that ships.

use super::cluster::Cluster;
use crate::support::{Installation, Process, seed};
use futures::future::join_all;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

const ROUNDS: usize = 12;
const CLIENTS: usize = 4;

/// Longer than the start of a process and shorter than a test should be.
const MOMENTS: std::ops::Range<u64> = 50..900;

const LARGEST: usize = 4 * 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn processes_killed_at_random_moments_lose_nothing() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    // Its own API only serves reads; another one is killed.
    let cluster = Cluster::start(Installation::new()).await;
    cluster.webhook().await;
    let environment = cluster.installation.environment();
    let (mut worker, number) = (cluster.worker(None), AtomicUsize::new(0));
    for round in 0..ROUNDS {
        let mut api = Process::listening(&["serve"], &environment).await;
        let url = api.url.clone();
        let client = async || {
            loop {
                let number = number.fetch_add(1, Ordering::SeqCst);
                let mut random = StdRng::seed_from_u64(seed.wrapping_add(number as u64));
                let mut bytes = vec![0; random.random_range(0..LARGEST)];
                random.fill(&mut bytes[..]);
                let name = format!("{number}.bin");
                if cluster.try_upload_at(&url, &name, bytes).await.is_none() {
                    return;
                }
            }
        };
        let moment = Duration::from_millis(random.random_range(MOMENTS));
        let killer = async {
            tokio::time::sleep(moment).await;
            api.kill().await;
        };
        futures::join!(join_all((0..CLIENTS).map(|_| client())), killer);
        if round % 2 == 0 {
            worker.kill().await;
            worker = cluster.worker(None);
        }
    }
    let acknowledged = cluster.log.len();
    println!("{acknowledged} uploads acknowledged over {ROUNDS} kills");
    assert!(acknowledged >= ROUNDS, "seed {seed}: hardly any upload");
    cluster.check(ROUNDS + ROUNDS.div_ceil(2)).await;
}
