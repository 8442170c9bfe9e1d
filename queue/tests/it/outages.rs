use std::time::{Duration, Instant};

use landfall_queue::{JobState, NewJob};

use crate::proxy::Proxy;
use crate::setup::{Note, Place, RedisServer, SOON, settings, wait_until};

/// A Redis of its own, whose data survive a restart, with a worker that has done a job.
async fn working(concurrency: usize) -> (RedisServer, Place, crate::setup::Worker) {
    let server = RedisServer::start_with(&["--appendonly", "yes"]).await;
    let place = Place::at(&server.url(), settings());
    let worker = place.start(concurrency);
    place.push("first", Note::Succeed).await;
    place.wait_for_state("first", JobState::Done).await;
    (server, place, worker)
}

/// The existing worker still works.
async fn still_works(place: &Place, worker: crate::setup::Worker) {
    wait_until(SOON, async || {
        place.queue.push(NewJob::new("last", Note::Succeed)).await
    })
    .await;
    place.wait_for_state("last", JobState::Done).await;
    wait_until(SOON, async || {
        place.inspector.workers().await.is_ok_and(|w| w.len() == 1)
    })
    .await;
    worker.stop().await;
}

#[tokio::test]
async fn restart_of_redis_ends_no_worker_and_loses_no_outcome() {
    let (server, place, worker) = working(4).await;
    place.push("held", Note::Hold).await;
    place.log.wait_for(2).await;
    server.stop().await;
    place.log.release(1);
    wait_until(SOON, async || place.log.ended() == 2).await;
    server.start_again().await;
    place.wait_for_state("held", JobState::Done).await;
    assert_eq!(place.log.runs_of("held").len(), 1);
    still_works(&place, worker).await;
}

#[tokio::test]
async fn push_while_redis_is_away_fails_in_bounded_time() {
    let (server, place, worker) = working(1).await;
    server.stop().await;
    let begun = Instant::now();
    let pushed = place.queue.push(NewJob::new("a", Note::Succeed)).await;
    assert!(pushed.is_err());
    assert!(
        begun.elapsed() < Duration::from_secs(11),
        "{:?}",
        begun.elapsed()
    );
    server.start_again().await;
    still_works(&place, worker).await;
}

#[tokio::test]
async fn worker_started_before_redis_waits_for_it() {
    let server = RedisServer::start().await;
    let place = Place::at(&server.url(), settings());
    server.stop().await;
    let worker = place.start(1);
    server.start_again().await;
    still_works(&place, worker).await;
}

#[tokio::test]
async fn worker_stops_in_bounded_time_while_redis_is_away() {
    let (server, place, worker) = working(1).await;
    place.push("held", Note::Hold).await;
    place.log.wait_for(2).await;
    server.stop().await;
    let begun = Instant::now();
    worker.stop().await;
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn flushall_loses_the_jobs_and_no_worker() {
    let (server, place, worker) = working(4).await;
    place.push_grouped("g", 0..1, Note::Hold).await;
    place.push("later", Note::Succeed).await;
    place.log.wait_for(2).await;
    place.wait_for_state("later", JobState::Done).await;
    server.flush_all().await;
    place.log.release(1);
    wait_until(SOON, async || place.log.ended() == 3).await;
    let pushed = place
        .queue
        .push(NewJob::new("g:0", Note::Succeed).group("g"))
        .await;
    assert_eq!(pushed.unwrap(), landfall_queue::PushOutcome::Queued);
    place.wait_for_state("g:0", JobState::Done).await;
    wait_until(SOON, async || {
        place.inspector.queues().await.unwrap() == ["notes"]
    })
    .await;
    still_works(&place, worker).await;
}

#[tokio::test]
async fn job_pushed_again_after_flushall_does_not_run_beside_its_old_run_for_long() {
    let (server, place, worker) = working(4).await;
    place.push("held", Note::Hold).await;
    place.log.wait_for(2).await;
    server.flush_all().await;
    place.push("held", Note::Hold).await;
    place.wait_for_state("held", JobState::Running).await;
    wait_until(SOON, async || place.log.runs_of("held").len() == 2).await;
    place.log.release(2);
    place.wait_for_state("held", JobState::Done).await;
    assert_eq!(place.stats().await.done_total, 1);
    still_works(&place, worker).await;
}

#[tokio::test]
async fn pause_of_redis_longer_than_the_lease_runs_no_job_twice() {
    let server = RedisServer::start().await;
    let place = Place::at(&server.url(), settings().lease(Duration::from_secs(1)));
    let workers = [place.start(2), place.start(2)];
    for i in 0..4 {
        place.push(&format!("held:{i}"), Note::Hold).await;
    }
    place.log.wait_for(4).await;
    server.pause(Duration::from_millis(2_500)).await;
    let pushed = place.queue.push(NewJob::new("after", Note::Hold)).await;
    pushed.unwrap();
    place.log.release(5);
    place.wait_until_quiet().await;
    for worker in workers {
        worker.stop().await;
    }
    assert_eq!(place.log.count(), 5);
    assert_eq!(place.stats().await.done_total, 5);
}

#[tokio::test]
async fn frozen_redis_longer_than_the_command_timeout_loses_nothing() {
    let (server, place, worker) = working(4).await;
    place.push("held", Note::Hold).await;
    place.log.wait_for(2).await;
    server.freeze();
    let pushed = place
        .queue
        .push(NewJob::new("unheard", Note::Succeed))
        .await;
    assert!(matches!(
        pushed,
        Err(landfall_queue::QueueError::Timeout(_) | landfall_queue::QueueError::Redis(_))
    ));
    place.log.release(1);
    wait_until(SOON, async || place.log.ended() == 2).await;
    server.thaw();
    place.wait_for_state("held", JobState::Done).await;
    assert_eq!(place.log.runs_of("held").len(), 1);
    still_works(&place, worker).await;
}

#[tokio::test]
async fn connection_that_only_hangs_is_replaced() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.port()).await;
    let place = Place::at(&proxy.url(), settings());
    let worker = place.start(4);
    place.push("first", Note::Succeed).await;
    place.wait_for_state("first", JobState::Done).await;
    proxy.drop_everything_on_open_connections();
    wait_until(SOON, async || {
        place.queue.push(NewJob::new("a", Note::Succeed)).await
    })
    .await;
    place.wait_for_state("a", JobState::Done).await;
    still_works(&place, worker).await;
}

#[tokio::test]
async fn jobs_whose_answer_was_lost_are_given_again_before_their_lease_ends() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.port()).await;
    let hour = settings().lease(Duration::from_secs(3_600));
    let far = Place::at(&proxy.url(), hour.poll_interval(Duration::from_millis(200)));
    let near = Place::joining(&server.url(), far.redis.prefix(), settings());
    let worker = far.start(4);
    near.push("first", Note::Succeed).await;
    near.wait_for_state("first", JobState::Done).await;
    proxy.drop_responses_on_open_connections();
    near.push_grouped("g", 0..1, Note::Succeed).await;
    near.wait_for_state("g:0", JobState::Running).await;
    assert_eq!(far.log.count(), 1, "taken, and nobody knows");
    let job = near.wait_for_state("g:0", JobState::Done).await;
    assert_eq!((job.crashes, far.log.runs_of("g:0").len()), (0, 1));
    still_works(&far, worker).await;
}

#[tokio::test]
async fn lost_connections_are_opened_again() {
    let (server, place, worker) = working(4).await;
    for i in 0..10 {
        server.drop_connections().await;
        let id = format!("job:{i}");
        wait_until(SOON, async || {
            place.queue.push(NewJob::new(&id, Note::Succeed)).await
        })
        .await;
        place.wait_for_state(&id, JobState::Done).await;
    }
    still_works(&place, worker).await;
}

#[tokio::test]
async fn redis_out_of_memory_refuses_pushes_and_ends_no_worker() {
    let (server, place, worker) = working(4).await;
    place.push("held", Note::Hold).await;
    place.log.wait_for(2).await;
    server.set_config("maxmemory", "1").await;
    let pushed = place
        .queue
        .push(NewJob::new("refused", Note::Succeed))
        .await;
    assert!(pushed.is_err());
    place.log.release(1);
    wait_until(SOON, async || place.log.ended() == 2).await;
    server.set_config("maxmemory", "0").await;
    place.wait_for_state("held", JobState::Done).await;
    still_works(&place, worker).await;
}

#[tokio::test]
async fn scripts_that_redis_forgot_are_sent_again() {
    let (server, place, worker) = working(1).await;
    let flush = redis::cmd("SCRIPT").arg("FLUSH").to_owned();
    crate::setup::raw::<()>(&server.url(), &flush).await;
    still_works(&place, worker).await;
}
