use std::time::{Duration, Instant};

use futures::StreamExt as _;
use landfall_queue::{JobState, NewJob};

use crate::setup::{Note, Place, RedisServer, SOON, raw, settings, wait_until};

#[tokio::test]
async fn idle_worker_starts_a_pushed_job_at_once() {
    let place = Place::new();
    let worker = place.start(4);
    place.push("warm", Note::Succeed).await;
    place.wait_for_state("warm", JobState::Done).await;
    let mut waits = Vec::new();
    for i in 0..50 {
        let begun = Instant::now();
        place.push(&format!("{i}"), Note::Succeed).await;
        place.log.wait_for(2 + i).await;
        waits.push(place.log.runs()[1 + i].at.saturating_duration_since(begun));
    }
    waits.sort();
    assert!(waits[25] < Duration::from_millis(25), "{waits:?}");
    worker.stop().await;
}

#[tokio::test]
async fn scheduled_jobs_start_within_milliseconds_of_their_time() {
    let place = Place::new();
    let worker = place.start(64);
    place.push("warm", Note::Succeed).await;
    place.wait_for_state("warm", JobState::Done).await;
    let begun = Instant::now();
    let delays: Vec<u64> = (0..40).map(|i| 150 + 37 * i).collect();
    for ms in delays.iter().rev() {
        let job = NewJob::new(format!("{ms}"), Note::Succeed).after(Duration::from_millis(*ms));
        place.queue.push(job).await.unwrap();
    }
    let pushed_in = begun.elapsed();
    place.log.wait_for(41).await;
    worker.stop().await;
    let mut late: Vec<_> = delays
        .iter()
        .map(|ms| {
            let at = place.log.runs_of(&ms.to_string())[0].at - begun;
            assert!(at >= Duration::from_millis(*ms), "early: {at:?}");
            at.saturating_sub(Duration::from_millis(*ms) + pushed_in)
        })
        .collect();
    late.sort();
    assert!(late[20] < Duration::from_millis(15), "{late:?}");
}

#[tokio::test]
async fn idle_worker_sends_about_one_command_a_second() {
    let server = RedisServer::start().await;
    let calm = settings()
        .lease(Duration::from_secs(30))
        .poll_interval(Duration::from_secs(5));
    let place = Place::at(&server.url(), calm);
    let worker = place.start(8);
    wait_until(SOON, async || {
        place.inspector.workers().await.unwrap().len() == 1
    })
    .await;
    // The job is the clock: it is due in six seconds.
    let job = NewJob::new("clock", Note::Succeed).after(Duration::from_secs(6));
    place.queue.push(job).await.unwrap();
    raw::<()>(&server.url(), redis::cmd("CONFIG").arg("RESETSTAT")).await;
    place.log.wait_for(1).await;
    let stats: String = raw(&server.url(), redis::cmd("INFO").arg("commandstats")).await;
    let calls: u64 = stats
        .lines()
        .filter_map(|line| line.strip_prefix("cmdstat_evalsha:calls="))
        .filter_map(|line| line.split(',').next()?.parse::<u64>().ok())
        .sum();
    assert!((1..=11).contains(&calls), "{calls} in six seconds\n{stats}");
    worker.stop().await;
}

#[tokio::test]
async fn missed_wake_up_is_made_good_by_the_poll() {
    let server = RedisServer::start().await;
    let place = Place::at(
        &server.url(),
        settings().poll_interval(Duration::from_millis(500)),
    );
    let worker = place.start(1);
    place.push("warm", Note::Succeed).await;
    place.wait_for_state("warm", JobState::Done).await;
    // No wake-up is published for this one: it is written directly to Redis.
    let base = format!("{}:{{notes}}", place.redis.prefix());
    let job = format!("{base}:job:silent");
    let fields = "state ready group  args \"Succeed\" tries 0 max 3 crashes 0 born 0";
    let mut set = redis::cmd("HSET");
    set.arg(job);
    for field in fields.split(' ') {
        set.arg(field);
    }
    raw::<()>(&server.url(), &set).await;
    for (key, member) in [("lane:", "silent"), ("ring", "")] {
        let add = redis::cmd("ZADD")
            .arg(format!("{base}:{key}"))
            .arg(1)
            .arg(member)
            .to_owned();
        raw::<()>(&server.url(), &add).await;
    }
    place.wait_for_state("silent", JobState::Done).await;
    worker.stop().await;
}

#[tokio::test]
async fn due_jobs_by_the_thousand_all_run() {
    let place = Place::new();
    let jobs = (0..8_000)
        .map(|i| NewJob::new(format!("{i}"), Note::Succeed).after(Duration::from_millis(400)));
    place.queue.push_many(jobs).await.unwrap();
    let worker = place.start(64);
    place.wait_until_quiet().await;
    assert_eq!(place.stats().await.done_total, 8_000);
    worker.stop().await;
}

#[tokio::test]
async fn paused_queue_starts_nothing_and_a_resumed_one_starts_at_once() {
    let place = Place::new();
    let worker = place.start(4);
    place.push("held", Note::Hold).await;
    place.log.wait_for(1).await;
    place.inspector.pause("notes").await.unwrap();
    assert!(place.stats().await.paused);
    place.push("waits", Note::Succeed).await;
    let later = NewJob::new("due", Note::Succeed).after(Duration::from_millis(50));
    place.queue.push(later).await.unwrap();
    place.log.release(1);
    place.wait_for_state("held", JobState::Done).await;
    // A round of the lease renewer makes the due job ready: by then a worker would have started both.
    place.wait_for_state("due", JobState::Ready).await;
    assert_eq!(place.job("waits").await.unwrap().state, JobState::Ready);
    assert_eq!(place.log.count(), 1);
    place.inspector.resume("notes").await.unwrap();
    let begun = Instant::now();
    place.log.wait_for(3).await;
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert!(!place.stats().await.paused);
    worker.stop().await;
}

#[tokio::test]
async fn subscription_outlives_its_connection() {
    let server = RedisServer::start().await;
    let place = Place::at(&server.url(), settings());
    let mut messages = place.redis.subscribe("news");
    for word in ["one", "two"] {
        let heard = async {
            loop {
                let publish = place.redis.publish("news", word);
                publish.await.ok();
                let wait = Duration::from_millis(50);
                if let Ok(message) = tokio::time::timeout(wait, messages.next()).await {
                    break message.unwrap();
                }
            }
        };
        let heard = tokio::time::timeout(SOON, heard).await.unwrap();
        assert_eq!(heard, word);
        while tokio::time::timeout(Duration::from_millis(50), messages.next())
            .await
            .is_ok()
        {}
        server.drop_connections().await;
    }
    assert!(place.redis.ping().await.unwrap() < SOON);
    assert!(place.redis.memory_used().await.unwrap() > 100_000);
}
