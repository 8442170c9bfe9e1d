//! All faults at once, from a seed that is printed.

use std::time::{Duration, Instant};

use landfall_queue::{JobState, NewJob};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{
    process::WorkerProcess,
    setup::{Note, Place, RedisServer, settings, slots_at},
};

const JOBS: usize = 600;

fn any_note(random: &mut StdRng) -> Note {
    match random.random_range(0..10) {
        0 => Note::FailOnce,
        1 => Note::PanicOnce,
        2 => Note::RetryOnce {
            ms: random.random_range(0..50),
            counts: random.random_bool(0.5),
        },
        3 => Note::Sleep {
            ms: random.random_range(0..300),
        },
        _ => Note::Succeed,
    }
}

/// Jobs are pushed (many twice) while workers are killed and frozen, connections cut and Redis restarted. At the end
/// each job is done, no slot is in use and no lease is left.
#[tokio::test]
async fn every_job_is_done_and_every_slot_free_whatever_happens() {
    let seed = std::env::var("QUEUE_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| rand::rng().random::<u64>());
    println!("QUEUE_TEST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let server = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]).await;
    let calm = settings()
        .group_limit(3)
        .max_attempts(10)
        .max_crashes(1_000);
    let place = Place::at(&server.url(), calm.keep_done(JOBS));
    let process = || WorkerProcess::start(&server.url(), place.redis.prefix());
    let mut workers = [process(), process(), process()];
    let own = place.start(3);

    let mut pushed = 0;
    let begun = Instant::now();
    while pushed < JOBS {
        let known: Vec<_> = (0..10)
            .map(|_| random.random_range(0..=pushed + 9).min(JOBS - 1))
            .collect();
        let jobs: Vec<_> = (pushed..pushed + 10)
            .chain(known)
            .map(|i| {
                let job = NewJob::new(format!("job:{i}"), any_note(&mut random));
                match i % 7 {
                    0 => job,
                    group => job.group(format!("group:{group}")),
                }
            })
            .collect();
        if place.queue.push_many(jobs).await.is_ok() {
            pushed += 10;
        }
        let victim = random.random_range(0..3);
        match random.random_range(0..12) {
            0 => {
                workers[victim].kill();
                workers[victim] = process();
            }
            1 => workers[victim].freeze(),
            2 => workers.iter().for_each(WorkerProcess::thaw),
            3 => server.drop_connections().await,
            4 if random.random_bool(0.3) => server.restart().await,
            5 => server.pause(Duration::from_millis(200)).await,
            _ => {}
        }
    }
    println!("pushed in {:?}", begun.elapsed());
    workers.iter().for_each(WorkerProcess::thaw);
    place.wait_until_quiet().await;
    own.stop().await;
    let stats = place.stats().await;
    assert_eq!(
        (stats.done_kept as usize, stats.dead),
        (JOBS, 0),
        "{stats:?}"
    );
    let done = place
        .inspector
        .jobs("notes", JobState::Done, 0, JOBS)
        .await
        .unwrap();
    assert_eq!(done.len(), JOBS);
    let slots = slots_at(&server.url(), place.redis.prefix()).await;
    assert!(slots.is_empty(), "{slots:?}");
    for group in 1..7 {
        assert!(place.log.most_at_once(&format!("group:{group}")) <= 3);
    }
}
