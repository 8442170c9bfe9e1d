use std::time::{Duration, SystemTime};

use landfall_queue::{JobState, NewJob, PushCounts, PushOutcome, QueueError};

use crate::setup::{Note, Place, settings};

const HOUR: Duration = Duration::from_secs(3_600);

#[tokio::test]
async fn push_of_a_ready_job_is_a_no_op() {
    let place = Place::new();
    let push = || place.queue.push(NewJob::new("a", Note::Succeed));
    assert_eq!(push().await.unwrap(), PushOutcome::Queued);
    assert_eq!(push().await.unwrap(), PushOutcome::AlreadyQueued);
    assert_eq!(place.stats().await.ready, 1);
    let worker = place.start(4);
    place.wait_until_quiet().await;
    worker.stop().await;
    assert_eq!(place.log.count(), 1);
}

#[tokio::test]
async fn push_of_a_scheduled_job_is_known() {
    let place = Place::new();
    let push = || {
        place
            .queue
            .push(NewJob::new("a", Note::Succeed).after(HOUR))
    };
    assert_eq!(push().await.unwrap(), PushOutcome::Queued);
    assert_eq!(push().await.unwrap(), PushOutcome::AlreadyQueued);
    let stats = place.stats().await;
    assert_eq!((stats.ready, stats.scheduled), (0, 1));
}

#[tokio::test]
async fn earlier_push_brings_a_scheduled_job_forward_and_a_later_one_does_not_delay_it() {
    let place = Place::new();
    let push = |delay| {
        place
            .queue
            .push(NewJob::new("a", Note::Succeed).after(delay))
    };
    push(2 * HOUR).await.unwrap();
    assert_eq!(push(HOUR).await.unwrap(), PushOutcome::AlreadyQueued);
    let due = place.job("a").await.unwrap().run_at.unwrap();
    push(3 * HOUR).await.unwrap();
    assert_eq!(place.job("a").await.unwrap().run_at.unwrap(), due);
    let left = due.duration_since(SystemTime::now()).unwrap();
    assert!(left <= HOUR && left > HOUR / 2, "{left:?}");
    push(Duration::ZERO).await.unwrap();
    let stats = place.stats().await;
    assert_eq!((stats.ready, stats.scheduled), (1, 0));
}

#[tokio::test]
async fn done_and_dead_and_lost_jobs_can_be_pushed_again() {
    let place = Place::new();
    let worker = place.start(4);
    let push = async |id: &str, note: Note| {
        let pushed = place.queue.push(NewJob::new(id, note)).await.unwrap();
        assert_eq!(pushed, PushOutcome::Queued, "{id}");
    };
    push("done", Note::Succeed).await;
    push("dead", Note::Abort).await;
    push("lost", Note::Succeed).await;
    place.wait_for_state("done", JobState::Done).await;
    place.wait_for_state("dead", JobState::Dead).await;
    place.wait_for_state("lost", JobState::Done).await;
    place.inspector.delete("notes", "lost").await.unwrap();
    for id in ["done", "dead", "lost"] {
        push(id, Note::Succeed).await;
    }
    place.log.wait_for(6).await;
    place.wait_until_quiet().await;
    let stats = place.stats().await;
    assert_eq!((stats.done_kept, stats.dead), (3, 0));
    let job = place.job("dead").await.unwrap();
    assert_eq!((job.attempts, job.last_error), (0, None));
    worker.stop().await;
}

#[tokio::test]
async fn job_pushed_while_it_runs_runs_once_more() {
    let place = Place::new();
    let worker = place.start(4);
    place.push("a", Note::Hold).await;
    place.log.wait_for(1).await;
    for _ in 0..3 {
        let again = place.queue.push(NewJob::new("a", Note::Succeed)).await;
        assert_eq!(again.unwrap(), PushOutcome::AlreadyQueued);
    }
    assert_eq!(place.log.count(), 1, "not at the same time");
    place.log.release(1);
    place.log.wait_for(2).await;
    place.wait_until_quiet().await;
    assert_eq!(place.log.count(), 2, "three pushes are one more run");
    assert_eq!(place.log.runs()[1].context.attempt, 1);
    assert_eq!(place.stats().await.done_total, 2);
    worker.stop().await;
}

#[tokio::test]
async fn job_pushed_for_later_while_it_runs_is_scheduled_when_it_is_done() {
    let place = Place::new();
    let worker = place.start(4);
    place.push("a", Note::Hold).await;
    place.log.wait_for(1).await;
    for delay in [2 * HOUR, HOUR] {
        let job = NewJob::new("a", Note::Succeed).after(delay);
        assert_eq!(
            place.queue.push(job).await.unwrap(),
            PushOutcome::AlreadyQueued
        );
    }
    place.log.release(1);
    let job = place.wait_for_state("a", JobState::Scheduled).await;
    let left = job
        .run_at
        .unwrap()
        .duration_since(SystemTime::now())
        .unwrap();
    assert!(left <= HOUR && left > HOUR / 2, "{left:?}");
    worker.stop().await;
}

#[tokio::test]
async fn retry_of_a_failed_run_stands_for_a_push_while_it_ran() {
    let place = Place::with(settings().backoff(landfall_queue::Backoff::new(HOUR, HOUR)));
    let worker = place.start(4);
    place.push("a", Note::HoldThenFail).await;
    place.log.wait_for(1).await;
    place.push("a", Note::Succeed).await;
    place.log.release(2);
    place.log.wait_for(2).await;
    place.wait_until_quiet().await;
    assert_eq!(place.log.count(), 2);
    assert_eq!(place.log.runs()[1].context.attempt, 2);
    worker.stop().await;
}

#[tokio::test]
async fn job_pushed_during_its_last_attempt_starts_over_when_that_fails() {
    let place = Place::with(settings().max_attempts(1));
    let worker = place.start(4);
    place.push("a", Note::HoldThenFail).await;
    place.log.wait_for(1).await;
    place.push("a", Note::Succeed).await;
    place.log.release(1);
    place.wait_for_state("a", JobState::Done).await;
    let stats = place.stats().await;
    assert_eq!(
        (stats.dead, stats.failed_total, stats.done_total),
        (0, 1, 1)
    );
    worker.stop().await;
}

#[tokio::test]
async fn push_many_counts_what_it_queued_and_what_it_knew() {
    let place = Place::new();
    place.push("7", Note::Succeed).await;
    let jobs = (0..1_234).map(|i| NewJob::new(i.to_string(), Note::Succeed));
    let pushed = place.queue.push_many(jobs).await.unwrap();
    let expected = PushCounts {
        queued: 1_233,
        already_queued: 1,
    };
    assert_eq!(pushed, expected);
    assert_eq!(place.stats().await.ready, 1_234);
    assert_eq!(
        place.queue.push_many([]).await.unwrap(),
        PushCounts::default()
    );
}

#[tokio::test]
async fn names_that_cannot_be_kept_apart_are_refused() {
    let place = Place::new();
    for id in ["", "a\nb", &"x".repeat(257)] {
        let error = place.queue.push(NewJob::new(id, Note::Succeed)).await;
        assert!(matches!(error, Err(QueueError::InvalidId)), "{id:?}");
    }
    let job = NewJob::new("a", Note::Succeed).group("");
    let error = place.queue.push(job).await;
    assert!(matches!(error, Err(QueueError::InvalidGroup)));
    assert!(landfall_queue::Redis::open("redis://localhost", "a{b}").is_err());
    assert!(landfall_queue::Redis::open("http://localhost", "a").is_err());
}
