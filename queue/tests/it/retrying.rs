use std::time::Duration;

use landfall_queue::{Backoff, JobState, NewJob};

use crate::setup::{Note, Place, settings};

#[tokio::test]
async fn failing_job_is_dead_with_its_reason_after_its_attempts() {
    let place = Place::new();
    place.push("a", Note::Fail).await;
    let own = NewJob::new("b", Note::Fail).max_attempts(1);
    place.queue.push(own).await.unwrap();
    let worker = place.start(2);
    let a = place.wait_for_state("a", JobState::Dead).await;
    let b = place.wait_for_state("b", JobState::Dead).await;
    worker.stop().await;
    assert_eq!(
        (a.attempts, a.last_error.as_deref()),
        (3, Some("it failed"))
    );
    assert_eq!(b.attempts, 1);
    let attempts: Vec<_> = place
        .log
        .runs_of("a")
        .iter()
        .map(|r| r.context.attempt)
        .collect();
    assert_eq!(attempts, [1, 2, 3]);
    assert_eq!(place.log.runs_of("b").len(), 1);
    let stats = place.stats().await;
    assert_eq!(
        (stats.dead, stats.failed_total, stats.done_total),
        (2, 4, 0)
    );
}

#[tokio::test]
async fn waiting_for_a_retry_holds_no_slot() {
    let hour = Duration::from_secs(3_600);
    let place = Place::with(settings().backoff(Backoff::new(hour, hour)));
    place.push("a", Note::Fail).await;
    place.push("b", Note::Succeed).await;
    let worker = place.start(1);
    place.wait_for_state("b", JobState::Done).await;
    let a = place.job("a").await.unwrap();
    assert_eq!((a.state, a.attempts), (JobState::Scheduled, 1));
    worker.stop().await;
}

#[tokio::test]
async fn retry_after_is_kept_to_the_millisecond_and_counts_if_it_says_so() {
    let place = Place::new();
    let (ms, delay) = (250, Duration::from_millis(250));
    place
        .push("counts", Note::RetryOnce { ms, counts: true })
        .await;
    place
        .push("free", Note::RetryOnce { ms, counts: false })
        .await;
    place.push("wrapped", Note::RetryWrapped { ms }).await;
    let worker = place.start(4);
    place.wait_until_quiet().await;
    worker.stop().await;
    for (id, attempts) in [("counts", 1), ("free", 0), ("wrapped", 0)] {
        let runs = place.log.runs_of(id);
        let waited = runs[1].at - runs[0].at;
        assert!(waited >= delay, "{id}: {waited:?}");
        assert!(
            waited < delay + Duration::from_millis(150),
            "{id}: {waited:?}"
        );
        assert_eq!(place.job(id).await.unwrap().attempts, attempts, "{id}");
    }
    assert_eq!(place.stats().await.failed_total, 1);
}

#[tokio::test]
async fn aborted_job_is_dead_at_once() {
    let place = Place::new();
    place.push("a", Note::Abort).await;
    let worker = place.start(1);
    let job = place.wait_for_state("a", JobState::Dead).await;
    worker.stop().await;
    assert_eq!(place.log.count(), 1);
    assert!(job.last_error.unwrap().contains("it is hopeless"));
}

#[tokio::test]
async fn panicking_job_is_retried_then_dead_with_its_message_and_the_worker_goes_on() {
    let place = Place::new();
    let worker = place.start(1);
    place.push("first", Note::Succeed).await;
    place.log.wait_for(1).await;
    let before = place.inspector.workers().await.unwrap();
    place.push("once", Note::PanicOnce).await;
    place.push("always", Note::Panic).await;
    place.wait_for_state("once", JobState::Done).await;
    let dead = place.wait_for_state("always", JobState::Dead).await;
    assert_eq!((dead.attempts, dead.crashes), (3, 0));
    assert_eq!(dead.last_error.as_deref(), Some("panicked: it panicked"));
    place.push("last", Note::Succeed).await;
    place.wait_for_state("last", JobState::Done).await;
    let after = place.inspector.workers().await.unwrap();
    assert_eq!(before[0].name, after[0].name);
    worker.stop().await;
}

#[tokio::test]
async fn retry_never_loses_a_job_whose_worker_stops_meanwhile() {
    let place = Place::with(settings().backoff(Backoff::new(
        Duration::from_millis(300),
        Duration::from_millis(300),
    )));
    place.push("a", Note::FailOnce).await;
    let worker = place.start(1);
    place.log.wait_for(1).await;
    worker.stop().await;
    let worker = place.start(1);
    place.wait_for_state("a", JobState::Done).await;
    worker.stop().await;
}

#[test]
fn backoff_doubles_up_to_its_maximum_and_draws_below_it() {
    let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
    let ceilings: Vec<_> = (1..=6).map(|n| backoff.ceiling(n).as_millis()).collect();
    assert_eq!(ceilings, [100, 200, 400, 800, 1_000, 1_000]);
    assert_eq!(backoff.ceiling(u32::MAX), Duration::from_secs(1));
    let draws: Vec<_> = (0..200).map(|_| backoff.draw(3)).collect();
    assert!(draws.iter().all(|draw| *draw <= Duration::from_millis(400)));
    assert!(draws.iter().any(|draw| *draw < Duration::from_millis(100)));
    assert!(draws.iter().any(|draw| *draw > Duration::from_millis(300)));
}
