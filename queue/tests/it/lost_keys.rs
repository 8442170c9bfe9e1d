//! Redis may lose any single key: pushed jobs run nevertheless, and no slot stays in use forever.

use std::{collections::BTreeSet, time::Duration};

use futures::future::join_all;
use landfall_queue::{JobState, NewJob, Settings};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::time::{Instant, interval, interval_at};

use crate::setup::{
    Note, Place, RedisServer, SOON, Worker, keys_at, raw, settings, slots_at, wait_until,
};

/// The jobs of every scenario: two of a group with two slots, and one without a group.
const JOBS: [(&str, &str); 3] = [("g:0", "g"), ("g:1", "g"), ("plain", "")];

/// The interval of the sweep, a hundred times as fast.
const SWEEP: Duration = Duration::from_millis(700);

#[derive(Debug, Clone, Copy, PartialEq)]
enum When {
    Ready,
    Scheduled,
    Running,
    Done,
}

fn short() -> Settings {
    settings()
        .group_limit(2)
        .poll_interval(Duration::from_millis(300))
}

fn job(id: &str, group: &str, note: Note, delay: Duration) -> NewJob<Note> {
    let job = NewJob::new(id, note).after(delay);
    if group.is_empty() {
        job
    } else {
        job.group(group)
    }
}

struct Scenario {
    place: Place,
    worker: Option<Worker>,
}

impl Scenario {
    /// Prepares jobs in this state, with a worker where there must be one before the key is lost.
    async fn at(when: When) -> Self {
        let place = Place::with(short());
        let mut scenario = Self {
            place,
            worker: None,
        };
        let delay = match when {
            When::Scheduled => Duration::from_millis(1_500),
            _ => Duration::ZERO,
        };
        scenario.push(delay).await;
        if matches!(when, When::Running | When::Done) {
            scenario.worker = Some(scenario.place.start(4));
            scenario.place.log.wait_for(JOBS.len()).await;
        }
        if when == When::Done {
            scenario.place.log.release(JOBS.len());
            scenario.place.wait_until_quiet().await;
        }
        scenario
    }

    async fn push(&self, delay: Duration) {
        let jobs = JOBS.map(|(id, group)| job(id, group, Note::Hold, delay));
        self.place.queue.push_many(jobs).await.unwrap();
    }

    /// Pushes the jobs that have not started, as the application does. Returns how many of these existed: a worker may
    /// have claimed one that has not started yet, and then runs it once more.
    async fn sweep(&self) -> usize {
        let begun: BTreeSet<String> = self.place.log.ids().into_iter().collect();
        let missing = JOBS.into_iter().filter(|(id, _)| !begun.contains(*id));
        let jobs = missing.map(|(id, group)| job(id, group, Note::Hold, Duration::ZERO));
        self.place
            .queue
            .push_many(jobs)
            .await
            .unwrap()
            .already_queued as usize
    }

    /// The keys of this prefix, without parts that differ between scenarios.
    async fn keys(&self) -> Vec<(String, String)> {
        let prefix = self.place.redis.prefix();
        let keys = keys_at(RedisServer::shared(), prefix).await;
        let kind = |key: &str| {
            let key = key[prefix.len()..].to_owned();
            match key.find(":fetched:").or_else(|| key.find(":hour:")) {
                Some(at) => key[..at + 6].to_owned(),
                None => key,
            }
        };
        keys.into_iter().map(|key| (kind(&key), key)).collect()
    }

    async fn lose(&self, kind: &str) {
        let keys = self.keys().await;
        let (_, key) = keys
            .iter()
            .find(|(is, _)| is == kind)
            .unwrap_or_else(|| panic!("no {kind}: {keys:?}"));
        let lost: u64 = raw(RedisServer::shared(), redis::cmd("DEL").arg(key)).await;
        assert_eq!(lost, 1, "{key}");
    }
}

async fn survives(when: When, kind: &str) {
    let mut scenario = Scenario::at(when).await;
    scenario.lose(kind).await;
    let log = scenario.place.log.clone();
    let expected = match when {
        When::Done => {
            scenario.push(Duration::ZERO).await;
            2 * JOBS.len()
        }
        _ => JOBS.len(),
    };
    let worker = scenario
        .worker
        .take()
        .unwrap_or_else(|| scenario.place.start(4));
    // Before scheduled jobs are due, because a push would move them forward.
    let first = match when {
        When::Scheduled => Duration::from_secs(2),
        _ => Duration::ZERO,
    };
    let mut sweeps = interval_at(Instant::now() + first, SWEEP);
    let all_ran = wait_until(SOON, async || {
        let ran = log.ids();
        (ran.len() >= expected)
            .then_some(())
            .ok_or(format!("{when:?} without {kind}: ran {ran:?}"))
    });
    tokio::pin!(all_ran);
    let mut known = 0;
    loop {
        tokio::select! {
            () = &mut all_ran => break,
            _ = sweeps.tick() => known += scenario.sweep().await,
        }
    }
    log.release(expected + known);
    wait_until(SOON, async || {
        let (stats, slots) = (scenario.place.stats().await, scenario.place.slots().await);
        let quiet = stats.ready + stats.scheduled + stats.running == 0 && slots.is_empty();
        quiet
            .then_some(())
            .ok_or(format!("{when:?} without {kind}: {stats:?} {slots:?}"))
    })
    .await;
    let runs = log.count();
    assert!(
        (expected..=expected + known).contains(&runs),
        "{when:?} without {kind}: {runs} runs, {known} pushes of known jobs"
    );
    // All slots of the group are free.
    scenario
        .place
        .push_grouped("g", 10..14, Note::Succeed)
        .await;
    log.wait_for(runs + 4).await;
    worker.stop().await;
}

async fn every_key_of(when: When) {
    let scenario = Scenario::at(when).await;
    let kinds: BTreeSet<String> = scenario
        .keys()
        .await
        .into_iter()
        .map(|(kind, _)| kind)
        .collect();
    if let Some(worker) = scenario.worker {
        scenario.place.log.release(JOBS.len());
        worker.stop().await;
    }
    assert!(kinds.len() >= 6, "{kinds:?}");
    println!("{when:?}: {kinds:?}");
    let kinds: Vec<_> = kinds.into_iter().collect();
    for some in kinds.chunks(8) {
        join_all(some.iter().map(|kind| survives(when, kind))).await;
    }
}

#[tokio::test]
async fn jobs_that_are_ready_run_whichever_key_is_lost() {
    every_key_of(When::Ready).await;
}

#[tokio::test]
async fn jobs_that_are_scheduled_run_whichever_key_is_lost() {
    every_key_of(When::Scheduled).await;
}

#[tokio::test]
async fn jobs_that_are_running_run_once_whichever_key_is_lost() {
    every_key_of(When::Running).await;
}

#[tokio::test]
async fn jobs_that_are_done_can_be_pushed_again_whichever_key_is_lost() {
    every_key_of(When::Done).await;
}

/// Without any push: maintenance alone restores the indexes of ready and scheduled jobs.
#[tokio::test]
async fn maintenance_restores_every_index_by_itself() {
    for (when, index) in [
        (When::Ready, ":{notes}:lane:g"),
        (When::Ready, ":{notes}:lane:"),
        (When::Ready, ":{notes}:grouped"),
        (When::Ready, ":{notes}:ring"),
        (When::Ready, ":{notes}:ids"),
        (When::Ready, ":{notes}:meta"),
        (When::Scheduled, ":{notes}:scheduled"),
        (When::Scheduled, ":{notes}:ids"),
    ] {
        let scenario = Scenario::at(when).await;
        scenario.lose(index).await;
        let worker = scenario.place.start(4);
        scenario.place.log.wait_for(JOBS.len()).await;
        scenario.place.log.release(JOBS.len());
        scenario.place.wait_until_quiet().await;
        assert_eq!(scenario.place.log.count(), JOBS.len(), "{index}");
        worker.stop().await;
    }
}

#[tokio::test]
async fn lease_of_a_dead_worker_that_was_lost_is_made_anew_and_ends() {
    let scenario = Scenario::at(When::Ready).await;
    let (url, prefix) = (RedisServer::shared(), scenario.place.redis.prefix());
    let mut killed = crate::process::WorkerProcess::start(url, prefix);
    for (id, _) in JOBS {
        scenario.place.wait_for_state(id, JobState::Running).await;
    }
    killed.kill();
    scenario.lose(":{notes}:lease").await;
    scenario.place.log.release(JOBS.len());
    let worker = scenario.place.start(4);
    scenario.place.log.wait_for(JOBS.len()).await;
    scenario.place.wait_until_quiet().await;
    assert_eq!(scenario.place.log.count(), JOBS.len());
    assert!(scenario.place.slots().await.is_empty());
    worker.stop().await;
}

#[tokio::test]
async fn slots_come_back_when_the_hashes_of_jobs_in_flight_are_lost() {
    let place = Place::with(settings().group_limit(30));
    place.push_grouped("g", 0..30, Note::Hold).await;
    let worker = place.start(64);
    place.log.wait_for(30).await;
    place.push_grouped("g", 30..80, Note::Succeed).await;
    let jobs = keys_at(
        RedisServer::shared(),
        &format!("{}:{{notes}}:job:g:", place.redis.prefix()),
    )
    .await;
    let in_flight: Vec<_> = jobs
        .iter()
        .filter(|key| {
            key.rsplit(':')
                .next()
                .and_then(|i| i.parse().ok())
                .is_some_and(|i: u32| i < 30)
        })
        .collect();
    let lost: usize = raw(RedisServer::shared(), redis::cmd("DEL").arg(&in_flight)).await;
    assert_eq!(lost, 30);
    place.log.release(30);
    place.log.wait_for(80).await;
    wait_until(SOON, async || {
        let slots = place.slots().await;
        slots.is_empty().then_some(()).ok_or(format!("{slots:?}"))
    })
    .await;
    worker.stop().await;
}

#[tokio::test]
async fn slots_of_a_killed_worker_come_back_when_its_jobs_hashes_are_lost_too() {
    let place = Place::with(short());
    place.push_grouped("g", 0..2, Note::Hold).await;
    let mut killed =
        crate::process::WorkerProcess::start(RedisServer::shared(), place.redis.prefix());
    place.wait_for_state("g:0", JobState::Running).await;
    place.wait_for_state("g:1", JobState::Running).await;
    killed.kill();
    let jobs = keys_at(
        RedisServer::shared(),
        &format!("{}:{{notes}}:job:", place.redis.prefix()),
    )
    .await;
    let lost: usize = raw(RedisServer::shared(), redis::cmd("DEL").arg(&jobs)).await;
    assert_eq!(lost, 2);
    place.push_grouped("g", 2..6, Note::Succeed).await;
    let worker = place.start(4);
    place.log.wait_for(4).await;
    assert!(place.slots().await.is_empty());
    worker.stop().await;
}

#[tokio::test]
async fn slot_that_is_held_by_no_job_is_released() {
    let place = Place::with(short());
    let slots = format!("{}:{{notes}}:slots:g", place.redis.prefix());
    let mut held = redis::cmd("ZADD");
    held.arg(&slots).arg(1).arg("gone:0").arg(2).arg("gone:1");
    raw::<u64>(RedisServer::shared(), &held).await;
    place.push_grouped("g", 0..2, Note::Succeed).await;
    let worker = place.start(4);
    place.log.wait_for(2).await;
    worker.stop().await;
}

/// Single keys are lost continuously while jobs are pushed and processed, according to a seed.
#[tokio::test]
async fn all_jobs_run_while_keys_are_lost_at_random() {
    const JOBS: usize = 400;
    let seed = std::env::var("QUEUE_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| rand::rng().random::<u64>());
    println!("QUEUE_TEST_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let server = RedisServer::start().await;
    let place = Place::at(
        &server.url(),
        short().group_limit(3).max_crashes(1_000).keep_done(JOBS),
    );
    let workers = [place.start(4), place.start(4)];
    let new = |i: usize| {
        let job = NewJob::new(
            format!("job:{i}"),
            Note::Sleep {
                ms: (i % 30) as u64,
            },
        );
        let job = job.after(Duration::from_millis((i % 5) as u64 * 40));
        if i.is_multiple_of(7) {
            job
        } else {
            job.group(format!("group:{}", i % 7))
        }
    };
    let (mut pushed, mut lost) = (0, 0_u64);
    let begun = Instant::now();
    let mut swept = Instant::now();
    let mut pace = interval(Duration::from_millis(20));
    loop {
        pace.tick().await;
        let ran: BTreeSet<String> = place.log.ids().into_iter().collect();
        if ran.len() == JOBS {
            break;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(90),
            "{} of {JOBS} ran",
            ran.len()
        );
        if pushed < JOBS {
            place
                .queue
                .push_many((pushed..pushed + 10).map(new))
                .await
                .unwrap();
            pushed += 10;
        }
        if pushed < JOBS || random.random_bool(0.1) {
            let keys = keys_at(&server.url(), place.redis.prefix()).await;
            let key = &keys[random.random_range(0..keys.len())];
            // Each type equally often, though most keys are jobs.
            let key = match random.random_bool(0.5) {
                true => key,
                false => keys
                    .iter()
                    .find(|key| !key.contains(":job:") && random.random_bool(0.2))
                    .unwrap_or(key),
            };
            lost += raw::<u64>(&server.url(), redis::cmd("DEL").arg(key)).await;
        }
        if swept.elapsed() > SWEEP {
            swept = Instant::now();
            let missing = (0..pushed).filter(|i| !ran.contains(&format!("job:{i}")));
            place.queue.push_many(missing.map(new)).await.unwrap();
        }
    }
    assert!(lost > 30, "{lost} keys were lost");
    wait_until(SOON, async || {
        let (stats, slots) = (
            place.stats().await,
            slots_at(&server.url(), place.redis.prefix()).await,
        );
        let quiet = stats.ready + stats.scheduled + stats.running == 0 && slots.is_empty();
        quiet.then_some(()).ok_or(format!("{stats:?} {slots:?}"))
    })
    .await;
    println!(
        "{lost} keys lost, {} runs of {JOBS} jobs in {:?}",
        place.log.count(),
        begun.elapsed()
    );
    for worker in workers {
        worker.stop().await;
    }
}
