//! The backend that Apalis polls.

use std::{
    marker::PhantomData,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use apalis_core::{
    backend::{
        Backend as ApalisBackend, BackendConfig,
        finalize::Ephemeral,
        persistence::{Persisted, State},
    },
    task::Task,
    worker::context::WorkerContext,
};
use futures::{FutureExt as _, Sink, future::BoxFuture};
use tokio::time::{Sleep, sleep, timeout};

use super::{
    SHUTDOWN_TIMEOUT, WorkerHandle, WorkerState, acks::Ack, claims::Claim, layer::OutcomeLayer,
    persistence::JobPersistence,
};
use crate::{
    Job, JobContext, QueueError, Redis, Settings, WorkerIdentity, keys::Keys, outcome::Verdict,
};

/// The Apalis backend of one worker, created by [`Queue::backend`](crate::Queue::backend).
///
/// Pass it to a single `WorkerBuilder`. It limits the worker to the identity's concurrency, catches panics, and
/// requires Tokio.
pub struct Backend<J> {
    persisted: Persisted<JobPersistence>,
    handle: Arc<WorkerHandle>,
    settings: Arc<Settings>,
    /// Set after a fetch that found nothing: the next one waits for a wake-up or the end of this sleep.
    idle_sleep: Option<Pin<Box<Sleep>>>,
    closing: Option<BoxFuture<'static, ()>>,
    job: PhantomData<fn() -> J>,
}

impl<J: Job> std::fmt::Debug for Backend<J> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend")
            .field("queue", &J::QUEUE)
            .field("worker", &self.worker_name())
            .finish_non_exhaustive()
    }
}

impl<J: Job> Backend<J> {
    pub(crate) fn new(
        redis: Redis,
        keys: Keys,
        settings: Arc<Settings>,
        identity: WorkerIdentity,
    ) -> Self {
        let handle = WorkerHandle::new(redis, keys, settings.clone(), identity, J::QUEUE);
        let handle = Arc::new(handle);
        Self {
            persisted: Persisted::new(JobPersistence {
                handle: handle.clone(),
            }),
            handle,
            settings,
            idle_sleep: None,
            closing: None,
            job: PhantomData,
        }
    }

    /// The unique name of this worker in Redis.
    #[must_use]
    pub fn worker_name(&self) -> &str {
        &self.state().name
    }

    fn state(&self) -> &WorkerState {
        &self.handle.state
    }

    fn wait_for_work(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(idle_sleep) = &mut self.idle_sleep else {
            return Poll::Ready(());
        };
        if self.handle.state.signal.poll(cx).is_pending()
            && idle_sleep.as_mut().poll(cx).is_pending()
        {
            return Poll::Pending;
        }
        self.idle_sleep = None;
        Poll::Ready(())
    }

    /// Arguments that cannot be decoded will never be, so the job becomes dead. Reported as an error of the backend,
    /// this would end the worker, and the next one.
    fn decode(&self, task: Task<Vec<u8>>) -> Option<Task<J>> {
        match serde_json::from_slice(&task.args) {
            Ok(args) => Some(task.map_args(|_| args)),
            Err(error) => {
                let claim = task.data().get::<Claim>().cloned()?;
                let attempt = task.data().get::<JobContext>().map_or(1, |job| job.attempt);
                tracing::error!(job.id = %claim.id, %error, "the arguments of a job cannot be decoded");
                claim.ended.cancel();
                self.handle.acknowledge(Ack {
                    claim,
                    verdict: Verdict::Dead,
                    attempt,
                    text: format!("the arguments cannot be decoded: {error}"),
                });
                None
            }
        }
    }
}

impl<J: Job> ApalisBackend for Backend<J> {
    type Task = Task<J>;
    type Error = QueueError;

    fn poll_ready(
        &mut self,
        cx: &mut Context<'_>,
        worker: &WorkerContext,
    ) -> Poll<Result<(), QueueError>> {
        let heartbeat = self.settings.lease;
        self.persisted.poll_ready(cx, worker, heartbeat)
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        worker: &WorkerContext,
    ) -> Poll<Option<Result<Task<J>, QueueError>>> {
        loop {
            std::task::ready!(self.wait_for_work(cx));
            match self.persisted.poll_next(cx, worker) {
                Poll::Ready(Some(Ok(task))) => {
                    if let Some(task) = self.decode(task) {
                        return Poll::Ready(Some(Ok(task)));
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => return Poll::Ready(None),
                // `Persisted` is ready and yet pending: the fetch returned nothing.
                Poll::Pending if matches!(self.persisted.state(), State::Ready) => {
                    let us = self.state().sleep_us.load(Ordering::Relaxed);
                    self.idle_sleep = Some(Box::pin(sleep(Duration::from_micros(us))));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Releases buffered jobs, then waits until Redis has accepted every outcome, for at most
    /// 5 seconds. Jobs whose outcomes Redis has not received by then run again when
    /// their lease expires.
    fn poll_close(
        &mut self,
        cx: &mut Context<'_>,
        worker: &WorkerContext,
    ) -> Poll<Result<(), QueueError>> {
        std::task::ready!(self.persisted.poll_close(cx, worker))?;
        let state = self.handle.state.clone();
        let closing = self.closing.get_or_insert_with(|| {
            state.close();
            async move {
                if timeout(SHUTDOWN_TIMEOUT, state.claims.empty())
                    .await
                    .is_err()
                {
                    tracing::warn!(
                        queue = state.queue,
                        "some outcomes were not reported before shutdown"
                    );
                }
            }
            .boxed()
        });
        closing.poll_unpin(cx).map(Ok)
    }
}

impl<J: Job> BackendConfig for Backend<J> {
    type Args = J;
    type Id = String;
    type Kind = Ephemeral;
    type Config = Settings;
    type Layer = OutcomeLayer;

    fn config(&self) -> &Settings {
        &self.settings
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> OutcomeLayer {
        OutcomeLayer::new(self.handle.clone())
    }
}

/// Pushes jobs through Apalis's own interface. [`Queue::push`](crate::Queue::push) offers more.
impl<J: Job> Sink<Task<Vec<u8>>> for Backend<J> {
    type Error = QueueError;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), QueueError>> {
        Sink::poll_ready(Pin::new(&mut self.get_mut().persisted), cx)
    }

    fn start_send(self: Pin<&mut Self>, task: Task<Vec<u8>>) -> Result<(), QueueError> {
        Sink::start_send(Pin::new(&mut self.get_mut().persisted), task)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), QueueError>> {
        Sink::poll_flush(Pin::new(&mut self.get_mut().persisted), cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), QueueError>> {
        Sink::poll_close(Pin::new(&mut self.get_mut().persisted), cx)
    }
}
