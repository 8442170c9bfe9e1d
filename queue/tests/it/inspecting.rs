use std::time::{Duration, SystemTime};

use landfall_queue::{JobState, NewJob};

use crate::setup::{Note, Place, SOON, settings, wait_until};

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn figures_of_a_queue_are_what_is_in_it() {
    let place = Place::new();
    place.push("done", Note::Succeed).await;
    place.push("dead", Note::Abort).await;
    let worker = place.start(4);
    place.wait_until_quiet().await;
    place.push("held", Note::Hold).await;
    place.log.wait_for(3).await;
    place.inspector.pause("notes").await.unwrap();
    place.push("plain", Note::Succeed).await;
    place.push_grouped("g", 0..2, Note::Succeed).await;
    let later = NewJob::new("later", Note::Succeed).after(HOUR);
    place.queue.push(later).await.unwrap();
    let stats = place.stats().await;
    assert_eq!(
        (
            stats.ready,
            stats.scheduled,
            stats.running,
            stats.dead,
            stats.done_kept
        ),
        (3, 1, 1, 1, 1)
    );
    assert_eq!((stats.done_total, stats.failed_total), (1, 1));
    assert!(stats.oldest_ready_age.unwrap() < SOON);
    let next = stats.next_scheduled_at.unwrap();
    assert!(next > SystemTime::now() + HOUR / 2);
    assert_eq!(place.inspector.queues().await.unwrap(), ["notes"]);
    let unknown = place.inspector.stats("unknown").await.unwrap();
    assert_eq!((unknown.ready, unknown.oldest_ready_age), (0, None));
    worker.stop().await;
}

#[tokio::test]
async fn minutes_count_what_was_done_and_what_failed() {
    let place = Place::new();
    let worker = place.start(4);
    for i in 0..5 {
        place.push(&format!("done:{i}"), Note::Succeed).await;
    }
    place.push("dead", Note::Fail).await;
    place.wait_until_quiet().await;
    let minutes = place.inspector.per_minute("notes", 90).await.unwrap();
    assert_eq!(minutes.len(), 90);
    assert!(
        minutes
            .windows(2)
            .all(|w| w[1].minute == w[0].minute + Duration::from_secs(60))
    );
    let last_two = &minutes[88..];
    let (done, failed) = last_two
        .iter()
        .fold((0, 0), |(d, f), m| (d + m.done, f + m.failed));
    assert_eq!((done, failed), (5, 3));
    assert!(minutes[..88].iter().all(|m| m.done + m.failed == 0));
    worker.stop().await;
}

#[tokio::test]
async fn workers_say_who_they_are_and_what_they_do() {
    let place = Place::new();
    let worker = place.start(7);
    place.push("held", Note::Hold).await;
    place.log.wait_for(1).await;
    let info = wait_until(SOON, async || {
        let mut workers = place.inspector.workers().await.unwrap();
        workers.pop().filter(|worker| worker.running.len() == 1)
    })
    .await;
    assert!(info.name.starts_with("worker-"), "{}", info.name);
    assert_eq!((info.host.as_str(), info.concurrency), ("here", 7));
    assert_eq!(info.queues, ["notes"]);
    assert_eq!(info.running[0].id, "held");
    assert!(info.started_at <= info.running[0].since);
    let age = SystemTime::now().duration_since(info.last_beat).unwrap();
    assert!(age < Duration::from_secs(5), "{age:?}");
    let job = place.job("held").await.unwrap();
    assert_eq!(job.owner, Some(info.name));
    place.log.release(1);
    place.wait_until_quiet().await;
    worker.stop().await;
    assert!(place.inspector.workers().await.unwrap().is_empty());
}

#[tokio::test]
async fn pages_show_every_job_of_a_state_once() {
    let place = Place::new();
    let plain = (0..7).map(|i| NewJob::new(format!("plain:{i}"), Note::Succeed));
    place.queue.push_many(plain).await.unwrap();
    place.push_grouped("g", 0..8, Note::Succeed).await;
    let mut seen = Vec::new();
    for page in 0..4 {
        let jobs = place
            .inspector
            .jobs("notes", JobState::Ready, page * 4, 4)
            .await
            .unwrap();
        seen.extend(jobs.into_iter().map(|job| job.id));
    }
    let expected: Vec<_> = (0..7)
        .map(|i| format!("plain:{i}"))
        .chain((0..8).map(|i| format!("g:{i}")))
        .collect();
    assert_eq!(seen, expected);
    let scheduled = place
        .inspector
        .jobs("notes", JobState::Scheduled, 0, 10)
        .await
        .unwrap();
    assert!(scheduled.is_empty());
    assert_eq!(place.job("nobody").await, None);
}

#[tokio::test]
async fn dead_job_runs_again_as_if_new() {
    let place = Place::new();
    place.push("a", Note::Fail).await;
    place.push("ready", Note::Succeed).await;
    assert!(!place.inspector.run_again("notes", "ready").await.unwrap());
    let worker = place.start(1);
    place.wait_for_state("a", JobState::Dead).await;
    assert!(place.inspector.run_again("notes", "a").await.unwrap());
    wait_until(SOON, async || place.log.runs_of("a").len() == 6).await;
    place.wait_for_state("a", JobState::Dead).await;
    assert!(!place.inspector.run_again("notes", "nobody").await.unwrap());
    worker.stop().await;
    assert_eq!(place.log.runs_of("a")[3].context.attempt, 1);
}

#[tokio::test]
async fn scheduled_job_can_be_run_now() {
    let place = Place::new();
    let job = NewJob::new("a", Note::Succeed).after(HOUR);
    place.queue.push(job).await.unwrap();
    let worker = place.start(1);
    assert!(place.inspector.run_again("notes", "a").await.unwrap());
    place.wait_for_state("a", JobState::Done).await;
    worker.stop().await;
}

#[tokio::test]
async fn dead_jobs_are_run_again_in_bounded_pages() {
    let place = Place::with(settings().max_attempts(1));
    let jobs = (0..25).map(|i| NewJob::new(format!("{i}"), Note::FailOnce));
    place.queue.push_many(jobs).await.unwrap();
    let worker = place.start(4);
    wait_until(SOON, async || place.stats().await.dead == 25).await;
    let run = async |limit| {
        place
            .inspector
            .run_all_dead_again("notes", limit)
            .await
            .unwrap()
    };
    assert_eq!(run(10).await, 10);
    assert_eq!(run(1_000_000).await, 15);
    assert_eq!(run(10).await, 0);
    place.wait_until_quiet().await;
    let stats = place.stats().await;
    assert_eq!((stats.dead, stats.done_total), (0, 25));
    worker.stop().await;
}

#[tokio::test]
async fn deleted_jobs_leave_nothing_behind() {
    let place = Place::new();
    place.push_grouped("g", 0..30, Note::Succeed).await;
    place.push("plain", Note::Succeed).await;
    let later = NewJob::new("later", Note::Succeed).after(HOUR);
    place.queue.push(later).await.unwrap();
    let delete = async |id: &str| place.inspector.delete("notes", id).await.unwrap();
    assert!(delete("g:0").await);
    assert!(!delete("g:0").await);
    assert!(delete("plain").await && delete("later").await);
    let all = async |limit| {
        let deleted = place.inspector.delete_all("notes", JobState::Ready, limit);
        deleted.await.unwrap()
    };
    assert_eq!((all(9).await, all(100).await, all(100).await), (9, 20, 0));
    let stats = place.stats().await;
    assert_eq!((stats.ready, stats.scheduled), (0, 0));
    let base = format!("{}:{{notes}}", place.redis.prefix());
    let keys = redis::cmd("KEYS")
        .arg(format!("{base}*").replace('{', "\\{"))
        .to_owned();
    let mut keys: Vec<String> =
        crate::setup::raw(landfall_test_servers::RedisServer::shared(), &keys).await;
    keys.retain(|key| !key.ends_with(":meta") && !key.ends_with(":ring"));
    assert!(keys.is_empty(), "{keys:?}");
}
