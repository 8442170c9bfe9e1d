use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use apalis_core::{
    layers::{Layer, Service},
    monitor::Monitor,
};
use landfall_queue::{CancellationToken, JobState, NewJob, Queue, WorkerIdentity};
use serde::{Deserialize, Serialize};

use crate::setup::{Note, Place, SOON, handle, settings, wait_until};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[tokio::test]
async fn handler_is_told_what_run_it_is() {
    let place = Place::new();
    let job = NewJob::new("file:1", Note::FailOnce)
        .group("endpoint")
        .max_attempts(7)
        .trace(TRACE.to_owned());
    place.queue.push(job).await.unwrap();
    let worker = place.start(1);
    place.log.wait_for(2).await;
    worker.stop().await;
    let run = &place.log.runs()[1].context;
    assert_eq!(
        (run.id.as_str(), run.attempt, run.max_attempts),
        ("file:1", 2, 7)
    );
    assert_eq!(run.crashes, 0);
    assert_eq!(run.trace.as_deref(), Some(TRACE));
    assert_eq!(run.group.as_deref(), Some("endpoint"));
    let age = SystemTime::now().duration_since(run.enqueued_at).unwrap();
    assert!(age < Duration::from_secs(30), "{age:?}");
}

#[tokio::test]
async fn done_job_is_kept_with_its_times() {
    let place = Place::new();
    place.push("a", Note::Succeed).await;
    let worker = place.start(1);
    let job = place.wait_for_state("a", JobState::Done).await;
    worker.stop().await;
    assert_eq!(job.args, serde_json::json!("Succeed"));
    assert!(job.created_at <= job.started_at.unwrap());
    assert!(job.started_at <= job.finished_at);
    assert_eq!((job.owner, job.last_error, job.attempts), (None, None, 0));
}

#[tokio::test]
async fn no_more_jobs_run_at_once_than_the_worker_has_slots() {
    let place = Place::new();
    let jobs = (0..20).map(|i| NewJob::new(format!("job:{i}"), Note::Hold));
    place.queue.push_many(jobs).await.unwrap();
    let worker = place.start(5);
    place.log.wait_for(5).await;
    let stats = place.stats().await;
    assert_eq!(
        (stats.running, stats.ready),
        (5, 15),
        "and none is taken in advance"
    );
    place.log.release(20);
    place.wait_until_quiet().await;
    worker.stop().await;
    assert_eq!(place.log.count(), 20);
    assert_eq!(place.log.most_at_once(""), 5);
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct OtherShape {
    unknown: u8,
}

impl landfall_queue::Job for OtherShape {
    const QUEUE: &'static str = "notes";
}

#[tokio::test]
async fn job_whose_arguments_cannot_be_read_is_dead_and_the_worker_goes_on() {
    let place = Place::new();
    let worker = place.start(1);
    let other = Queue::<OtherShape>::new(place.redis.clone(), settings());
    other
        .push(NewJob::new("odd", OtherShape { unknown: 1 }))
        .await
        .unwrap();
    let job = place.wait_for_state("odd", JobState::Dead).await;
    let reason = job.last_error.unwrap();
    assert!(
        reason.starts_with("the arguments cannot be decoded"),
        "{reason}"
    );
    let before = place.inspector.workers().await.unwrap();
    place.push("fine", Note::Succeed).await;
    place.wait_for_state("fine", JobState::Done).await;
    let after = place.inspector.workers().await.unwrap();
    assert_eq!(
        before[0].name, after[0].name,
        "the worker was not started again"
    );
    worker.stop().await;
}

#[tokio::test]
async fn jobs_of_a_worker_that_is_dropped_are_given_back_at_once() {
    let place = Place::with(settings().lease(Duration::from_secs(600)));
    let worker = place.start(2);
    place.push("a", Note::Hold).await;
    place.log.wait_for(1).await;
    worker.drop_it();
    let job = place.wait_for_state("a", JobState::Ready).await;
    assert_eq!((job.attempts, job.crashes), (0, 0));
    place.log.release(1);
    let worker = place.start(2);
    place.wait_for_state("a", JobState::Done).await;
    worker.stop().await;
}

#[tokio::test]
async fn stop_waits_for_what_runs_and_starts_nothing_new() {
    let place = Place::new();
    place.push("a", Note::Hold).await;
    place.push("b", Note::Succeed).await;
    let worker = place.start(1);
    place.log.wait_for(1).await;
    let stopping = tokio::spawn(worker.stop());
    place.log.release(1);
    stopping.await.unwrap();
    assert_eq!(place.job("a").await.unwrap().state, JobState::Done);
    assert_eq!(place.job("b").await.unwrap().state, JobState::Ready);
    assert_eq!(place.log.ids(), ["a"]);
}

#[tokio::test]
async fn job_that_outlasts_the_stop_is_given_back_to_the_front() {
    let place = Place::with(settings().lease(Duration::from_secs(600)));
    place.push("a", Note::Hold).await;
    place.push("b", Note::Succeed).await;
    let worker = place.start(1);
    place.log.wait_for(1).await;
    worker.stop().await;
    let job = place.job("a").await.unwrap();
    assert_eq!(
        (job.state, job.attempts, job.crashes),
        (JobState::Ready, 0, 0)
    );
    assert_eq!(place.log.ended(), 0);
    let workers = place.inspector.workers().await.unwrap();
    assert!(workers.is_empty(), "a stopped worker leaves: {workers:?}");
    place.log.release(1);
    let worker = place.start(1);
    place.wait_until_quiet().await;
    worker.stop().await;
    assert_eq!(place.log.ids(), ["a", "a", "b"]);
}

#[tokio::test]
async fn jobs_run_first_in_first_out() {
    let place = Place::new();
    let ids: Vec<_> = (0..700).rev().map(|i| i.to_string()).collect();
    let jobs = ids.iter().map(|id| NewJob::new(id, Note::Succeed));
    place.queue.push_many(jobs).await.unwrap();
    let worker = place.start(1);
    place.wait_until_quiet().await;
    worker.stop().await;
    assert_eq!(place.log.ids(), ids);
}

#[tokio::test]
async fn tasks_pushed_through_apalis_run_too() {
    use futures::SinkExt as _;
    let place = Place::new();
    let identity = WorkerIdentity::new("sink", 1);
    let mut backend = place.queue.backend(identity);
    let args = serde_json::to_vec(&Note::Succeed).unwrap();
    let task = apalis_core::task::builder::TaskBuilder::new(args)
        .task_id(apalis_core::task::task_id::TaskId::from_string("tick:1"))
        .build();
    backend.send(task).await.unwrap();
    let worker = place.start(1);
    wait_until(SOON, async || place.log.ids() == ["tick:1"]).await;
    worker.stop().await;
}

/// A layer that panics outside of any job, once.
#[derive(Clone)]
struct Trap<S> {
    armed: Arc<AtomicBool>,
    inner: S,
}

impl<S> Layer<S> for Trap<()> {
    type Service = Trap<S>;

    fn layer(&self, inner: S) -> Trap<S> {
        let armed = self.armed.clone();
        Trap { armed, inner }
    }
}

impl<S: Service<Request>, Request> Service<Request> for Trap<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        assert!(!self.armed.swap(false, Ordering::Relaxed), "the trap");
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> S::Future {
        self.inner.call(request)
    }
}

#[tokio::test]
async fn worker_that_panics_outside_a_job_is_started_again_under_a_new_name() {
    let place = Place::with(settings().lease(Duration::from_secs(600)));
    let armed = Arc::new(AtomicBool::new(false));
    let (queue, log) = (place.queue.clone(), place.log.clone());
    let trap = Trap {
        armed: armed.clone(),
        inner: (),
    };
    let monitor = Monitor::new().register(move |_| {
        let identity = WorkerIdentity::new("trapped", 2);
        let worker = queue.worker(identity).data(log.clone());
        worker.layer(trap.clone()).build(handle)
    });
    let stop = CancellationToken::new();
    let (redis, token) = (place.redis.clone(), stop.clone());
    let running = tokio::spawn(async move {
        landfall_queue::run(monitor, &redis, token, Duration::from_secs(5)).await
    });
    place.push("held", Note::Hold).await;
    place.log.wait_for(1).await;
    let first = place.job("held").await.unwrap().owner;
    armed.store(true, Ordering::Relaxed);
    place.push("springs it", Note::Succeed).await;
    // If it finished any earlier, the job could end before the trap is sprung.
    wait_until(SOON, async || !armed.load(Ordering::Relaxed)).await;
    place.log.release(1);
    place.wait_until_quiet().await;
    assert_eq!(place.log.runs_of("held").len(), 2, "given back, not lost");
    let second = place.inspector.workers().await.unwrap().remove(0).name;
    assert_ne!(first, Some(second));
    stop.cancel();
    running.await.unwrap().unwrap();
}
