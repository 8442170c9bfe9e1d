use std::time::{Duration, Instant};

use landfall_queue::JobState;

use crate::{
    process::WorkerProcess,
    setup::{Note, Place, RedisServer, SOON, settings, wait_until},
};

const LEASE: Duration = Duration::from_secs(2);

fn place() -> Place {
    Place::with(settings().lease(LEASE).group_limit(2))
}

fn process(place: &Place) -> WorkerProcess {
    WorkerProcess::start(RedisServer::shared(), place.redis.prefix())
}

#[tokio::test]
async fn jobs_of_a_killed_worker_run_elsewhere_soon_after_their_lease() {
    let place = place();
    place.push_grouped("g", 0..2, Note::Hold).await;
    let mut killed = process(&place);
    place.wait_for_state("g:0", JobState::Running).await;
    place.wait_for_state("g:1", JobState::Running).await;
    place.log.release(2);
    let worker = place.start(4);
    killed.kill();
    let begun = Instant::now();
    place.log.wait_for(2).await;
    let took = begun.elapsed();
    assert!(took < LEASE + Duration::from_secs(3), "{took:?}");
    place.wait_until_quiet().await;
    worker.stop().await;
    for run in place.log.runs() {
        assert_eq!((run.context.crashes, run.context.attempt), (1, 1));
    }
    let job = place.job("g:0").await.unwrap();
    assert_eq!((job.crashes, job.attempts), (1, 0));
    assert!(place.slots().await.is_empty());
}

#[tokio::test]
async fn only_worker_started_again_takes_up_its_jobs_of_before() {
    let place = place();
    place.push("a", Note::Hold).await;
    let mut killed = process(&place);
    place.wait_for_state("a", JobState::Running).await;
    killed.kill();
    place.log.release(1);
    let worker = place.start(4);
    let done = place.wait_for_state("a", JobState::Done).await;
    assert_eq!(done.crashes, 1);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_job_of_a_live_worker_never_runs_twice() {
    let place = place();
    place.push("waits", Note::Hold).await;
    let blocking = Note::Block { ms: 5_000 };
    place.push("blocks", blocking).await;
    let workers = [place.start(2), place.start(2)];
    place.wait_for_state("blocks", JobState::Done).await;
    place.log.release(1);
    place.wait_for_state("waits", JobState::Done).await;
    for worker in workers {
        worker.stop().await;
    }
    assert_eq!(place.log.count(), 2);
}

#[tokio::test]
async fn outcome_of_a_worker_that_slept_through_its_lease_changes_nothing() {
    let place = place();
    place.push_grouped("g", 0..1, Note::Hold).await;
    let mut frozen = process(&place);
    place.wait_for_state("g:0", JobState::Running).await;
    let first = place.job("g:0").await.unwrap().owner;
    let worker = place.start(1);
    frozen.freeze();
    place.log.wait_for(1).await;
    frozen.release_one();
    frozen.thaw();
    // When it sends a heartbeat again, it has checked its leases before.
    wait_until(SOON, async || {
        let workers = place.inspector.workers().await.unwrap();
        workers.len() == 2
            && workers.iter().all(|w| w.running.len() <= 1)
            && workers.iter().map(|w| w.running.len()).sum::<usize>() == 1
    })
    .await;
    let job = place.job("g:0").await.unwrap();
    assert_eq!(job.state, JobState::Running);
    assert_ne!(job.owner, first);
    assert_eq!(place.slots().await.get("g"), Some(&1));
    place.log.release(1);
    place.wait_for_state("g:0", JobState::Done).await;
    assert_eq!(place.stats().await.done_total, 1);
    assert!(place.slots().await.is_empty());
    worker.stop().await;
}

#[tokio::test]
async fn job_that_takes_too_many_workers_with_it_is_dead() {
    let place = Place::with(settings().lease(Duration::from_secs(1)).max_crashes(1));
    place.push("poison", Note::Hold).await;
    let mut killed = process(&place);
    place.wait_for_state("poison", JobState::Running).await;
    let worker = place.start(1);
    killed.kill();
    let job = place.wait_for_state("poison", JobState::Dead).await;
    assert_eq!(job.last_error.as_deref(), Some("lost its worker 1 times"));
    assert_eq!(place.log.count(), 0);
    worker.stop().await;
}

#[tokio::test]
async fn many_expired_leases_are_taken_back_in_pages() {
    let place = Place::with(settings().lease(Duration::from_secs(1)));
    let jobs = (0..1_500).map(|i| landfall_queue::NewJob::new(format!("{i}"), Note::Hold));
    place.queue.push_many(jobs).await.unwrap();
    // Dropping a runtime at once is as good as killing a process, and it has as many slots.
    let (url, prefix) = (RedisServer::shared(), place.redis.prefix().to_owned());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let own = Place::joining(url, &prefix, settings().lease(Duration::from_secs(1)));
            let _worker = own.start(2_000);
            wait_until(SOON, async || own.stats().await.running == 1_500).await;
        });
        runtime.shutdown_background();
    })
    .join()
    .unwrap();
    place.log.release(1_500);
    let worker = place.start(64);
    place.wait_until_quiet().await;
    assert_eq!(place.stats().await.done_total, 1_500);
    worker.stop().await;
}
