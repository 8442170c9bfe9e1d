use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use landfall_queue::{JobState, NewJob};

use crate::setup::{Note, Place, SOON, settings, wait_until};

#[tokio::test]
async fn group_runs_no_more_jobs_at_once_than_its_limit_in_all_workers_together() {
    let place = Place::with(settings().group_limit(3));
    place.push_grouped("slow", 0..30, Note::Hold).await;
    let workers = [place.start(8), place.start(8)];
    place.log.wait_for(3).await;
    place.push("other", Note::Succeed).await;
    place.wait_for_state("other", JobState::Done).await;
    assert_eq!(place.stats().await.running, 3);
    place.log.release(30);
    place.wait_until_quiet().await;
    for worker in workers {
        worker.stop().await;
    }
    assert_eq!(place.log.count(), 31);
    assert_eq!(place.log.most_at_once("slow"), 3);
    assert!(place.slots().await.is_empty());
}

#[tokio::test]
async fn groups_and_jobs_without_group_take_turns() {
    let place = Place::new();
    place.push_grouped("a", 0..4, Note::Succeed).await;
    place.push_grouped("b", 0..4, Note::Succeed).await;
    let plain = (0..4).map(|i| NewJob::new(format!("plain:{i}"), Note::Succeed));
    place.queue.push_many(plain).await.unwrap();
    let worker = place.start(1);
    place.wait_until_quiet().await;
    worker.stop().await;
    let expected: Vec<_> = (0..4)
        .flat_map(|i| ["a", "b", "plain"].map(|name| format!("{name}:{i}")))
        .collect();
    assert_eq!(place.log.ids(), expected);
}

#[tokio::test]
async fn one_fetch_shares_the_free_slots_among_groups() {
    let place = Place::with(settings().group_limit(100));
    place.push_grouped("big", 0..100, Note::Hold).await;
    place.push_grouped("small", 0..2, Note::Hold).await;
    place.push_grouped("middle", 0..100, Note::Hold).await;
    let worker = place.start(12);
    place.log.wait_for(12).await;
    let of = |group: &str| {
        let runs = place.log.runs();
        runs.iter()
            .filter(|r| r.context.group.as_deref() == Some(group))
            .count()
    };
    assert_eq!((of("big"), of("small"), of("middle")), (5, 2, 5));
    worker.stop().await;
}

#[tokio::test]
async fn stalled_group_of_thousands_does_not_delay_another() {
    let place = Place::with(settings().group_limit(4));
    place.push_grouped("stalled", 0..5_000, Note::Hold).await;
    let worker = place.start(8);
    place.log.wait_for(4).await;
    let mut waits = Vec::new();
    for i in 0..50 {
        let begun = Instant::now();
        place.push_grouped("quick", i..i + 1, Note::Succeed).await;
        let id = format!("quick:{i}");
        wait_until(SOON, async || !place.log.runs_of(&id).is_empty()).await;
        waits.push(begun.elapsed());
    }
    waits.sort();
    assert!(waits[25] < Duration::from_millis(60), "{waits:?}");
    assert_eq!(place.stats().await.ready, 4_996);
    worker.stop().await;
}

#[tokio::test]
async fn limit_of_a_group_can_be_set_and_taken_back_while_it_runs() {
    let place = Place::with(settings().group_limit(6));
    place.queue.set_group_limit("g", Some(1)).await.unwrap();
    place.push_grouped("g", 0..40, Note::Hold).await;
    let worker = place.start(16);
    place.log.wait_for(1).await;
    place.log.release(9);
    place.log.wait_for(10).await;
    assert_eq!(place.log.most_at_once("g"), 1, "throttled to one");
    place.queue.set_group_limit("g", None).await.unwrap();
    place.log.wait_for(15).await;
    assert_eq!(place.stats().await.running, 6, "back to the settings");
    place.queue.set_group_limit("g", Some(9)).await.unwrap();
    place.log.wait_for(18).await;
    assert_eq!(place.stats().await.running, 9);
    place.queue.set_group_limit("g", Some(0)).await.unwrap();
    place.log.release(9);
    wait_until(SOON, async || place.stats().await.running == 0).await;
    assert_eq!(place.stats().await.ready, 22, "none starts");
    place.queue.set_group_limit("g", Some(4)).await.unwrap();
    place.log.release(22);
    place.wait_until_quiet().await;
    worker.stop().await;
    assert!(place.slots().await.is_empty());
}

#[tokio::test]
async fn slot_comes_back_once_whatever_the_end_of_the_job() {
    let place = Place::with(settings().group_limit(1).max_attempts(2));
    let ends = [
        Note::Succeed,
        Note::Fail,
        Note::Panic,
        Note::Abort,
        Note::RetryOnce {
            ms: 20,
            counts: false,
        },
        Note::RetryOnce {
            ms: 0,
            counts: true,
        },
    ];
    let jobs = ends.iter().enumerate();
    let jobs = jobs.map(|(i, note)| NewJob::new(format!("g:{i}"), note.clone()).group("g"));
    place.queue.push_many(jobs).await.unwrap();
    place.push_grouped("again", 0..1, Note::Hold).await;
    let worker = place.start(8);
    wait_until(SOON, async || !place.log.runs_of("again:0").is_empty()).await;
    place.push_grouped("again", 0..1, Note::Succeed).await;
    place.log.release(1);
    place.wait_until_quiet().await;
    worker.stop().await;
    assert_eq!(place.log.runs_of("again:0").len(), 2);
    assert_eq!(place.log.most_at_once("g"), 1);
    assert!(place.slots().await.is_empty(), "{:?}", place.slots().await);
}

#[tokio::test]
async fn slot_comes_back_once_when_a_running_job_is_deleted_or_given_back() {
    let place = Place::with(settings().group_limit(1));
    place.push_grouped("g", 0..3, Note::Hold).await;
    let worker = place.start(8);
    place.log.wait_for(1).await;
    assert!(place.inspector.delete("notes", "g:0").await.unwrap());
    place.log.wait_for(2).await;
    // The handler of the deleted job ends; that must not free the slot of the second.
    place.log.release(1);
    wait_until(SOON, async || place.log.ended() == 1).await;
    assert_eq!(place.slots().await.get("g"), Some(&1));
    worker.stop().await;
    assert!(place.slots().await.is_empty(), "given back");
    place.log.release(2);
    let worker = place.start(8);
    place.wait_until_quiet().await;
    worker.stop().await;
    assert!(place.slots().await.is_empty());
}

#[tokio::test]
async fn limits_set_together_replace_all_that_were_set_before() {
    let place = Place::with(settings().group_limit(3));
    place.queue.set_group_limit("a", Some(1)).await.unwrap();
    place.push_grouped("a", 0..3, Note::Hold).await;
    place.push_grouped("b", 0..3, Note::Hold).await;
    let worker = place.start(16);
    place.log.wait_for(4).await;
    assert_eq!(place.log.most_at_once("a"), 1);
    let limits = [("b".to_owned(), 1)];
    place.queue.set_group_limits(limits.clone()).await.unwrap();
    let set = place.queue.group_limits().await.unwrap();
    assert_eq!(set, BTreeMap::from(limits));
    place.log.wait_for(6).await;
    assert_eq!(place.log.most_at_once("a"), 3, "its limit was taken back");
    place.push_grouped("b", 3..5, Note::Hold).await;
    place.log.release(6);
    wait_until(SOON, async || place.log.count() == 7).await;
    assert_eq!(place.stats().await.running, 1, "limited to one now");
    place.log.release(2);
    place.wait_until_quiet().await;
    worker.stop().await;
}

/// Far more groups stall than a worker has slots; each has more jobs than the worker could ever run.
#[tokio::test]
async fn groups_that_stall_leave_the_slots_to_those_that_do_not() {
    let settings = settings()
        .group_limit(4)
        .slow_jobs(Duration::from_millis(100), 8);
    let place = Place::with(settings);
    for group in 0..40 {
        place
            .push_grouped(&format!("stalled:{group}"), 0..20, Note::Hold)
            .await;
    }
    let worker = place.start(8);
    place.log.wait_for(40).await;
    let mut waits = Vec::new();
    for i in 0..60 {
        let begun = Instant::now();
        place.push_grouped("quick", i..i + 1, Note::Succeed).await;
        let id = format!("quick:{i}");
        wait_until(SOON, async || !place.log.runs_of(&id).is_empty()).await;
        waits.push(begun.elapsed());
    }
    waits.sort();
    assert!(waits[30] < Duration::from_millis(60), "{waits:?}");
    assert!(waits[59] < Duration::from_secs(2), "{waits:?}");
    let running = place.stats().await.running;
    assert!((40..=160).contains(&running), "{running}");
    wait_until(SOON, async || {
        let worker = place.inspector.workers().await.unwrap().remove(0);
        (worker.busy() == 0 && worker.slow >= 40)
            .then_some(())
            .ok_or(format!("{} slow, {} busy", worker.slow, worker.busy()))
    })
    .await;
    // They still finish.
    place.log.release(800);
    place.wait_until_quiet().await;
    assert_eq!(place.log.count(), 860);
    assert!(place.slots().await.is_empty());
    worker.stop().await;
}

#[tokio::test]
async fn group_that_was_slow_and_answers_again_has_all_its_slots() {
    let settings = settings()
        .group_limit(6)
        .slow_jobs(Duration::from_millis(100), 1);
    let place = Place::with(settings);
    place.push_grouped("g", 0..6, Note::Sleep { ms: 300 }).await;
    let worker = place.start(8);
    place.wait_until_quiet().await;
    place.push_grouped("g", 6..7, Note::Succeed).await;
    place.wait_until_quiet().await;
    place.push_grouped("g", 7..13, Note::Hold).await;
    place.log.wait_for(13).await;
    assert_eq!(place.stats().await.running, 6);
    place.log.release(6);
    place.wait_until_quiet().await;
    worker.stop().await;
}
