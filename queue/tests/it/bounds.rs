use landfall_queue::NewJob;

use crate::setup::{Note, Place, RedisServer, settings};

#[tokio::test]
async fn memory_is_bounded_by_what_is_to_be_kept() {
    let server = RedisServer::start().await;
    let place = Place::at(&server.url(), settings().keep_done(100).keep_dead(10));
    let before = place.redis.memory_used().await.unwrap();
    let jobs = (0..50_000).map(|i| {
        let note = if i % 100 == 0 {
            Note::Abort
        } else {
            Note::Succeed
        };
        NewJob::new(format!("job:{i}"), note).group(format!("group:{}", i % 500))
    });
    place.queue.push_many(jobs).await.unwrap();
    let worker = place.start(64);
    place.wait_until_quiet().await;
    worker.stop().await;
    let stats = place.stats().await;
    assert_eq!((stats.done_total, stats.failed_total), (49_500, 500));
    assert_eq!((stats.done_kept, stats.dead), (100, 10));
    let after = place.redis.memory_used().await.unwrap();
    assert!(
        after < before + 4_000_000,
        "{before} bytes before, {after} after"
    );
}

#[tokio::test]
async fn nothing_is_kept_when_nothing_is_to_be_kept() {
    let place = Place::with(settings().keep_done(0).keep_dead(0));
    place.push("done", Note::Succeed).await;
    place.push("dead", Note::Abort).await;
    let worker = place.start(1);
    place.wait_until_quiet().await;
    worker.stop().await;
    assert_eq!(
        (place.job("done").await, place.job("dead").await),
        (None, None)
    );
    assert_eq!(place.stats().await.done_total, 1);
}

#[tokio::test]
async fn backlog_of_a_hundred_thousand_is_worked_off() {
    let server = RedisServer::start().await;
    let place = Place::at(&server.url(), settings().keep_done(10));
    let jobs = (0..100_000).map(|i| NewJob::new(format!("job:{i}"), Note::Succeed));
    let pushed = place.queue.push_many(jobs).await.unwrap();
    assert_eq!(pushed.queued, 100_000);
    let workers = [place.start(64), place.start(64)];
    place.wait_until_quiet().await;
    for worker in workers {
        worker.stop().await;
    }
    assert_eq!(place.stats().await.done_total, 100_000);
    assert_eq!(place.log.count(), 100_000);
}
