//! Runs a job: limits concurrency, catches panics, drops the handler when the lease is lost, and determines the outcome
//! while the error is still available as a value.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};

use apalis_core::{
    error::BoxDynError,
    layers::{Layer, Service},
    task::Task,
};
use futures::{FutureExt as _, future::BoxFuture};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{WorkerHandle, acks::Ack, claims::Claim};
use crate::{
    JobContext,
    outcome::{JobPanic, LeaseLost, Verdict, describe, judge},
};

/// The layer that a [`Backend`](crate::Backend) puts around its worker's service. Apalis applies it automatically.
#[derive(Debug, Clone)]
pub struct OutcomeLayer {
    handle: Arc<WorkerHandle>,
}

impl OutcomeLayer {
    pub(crate) fn new(handle: Arc<WorkerHandle>) -> Self {
        Self { handle }
    }
}

impl<S> Layer<S> for OutcomeLayer {
    type Service = OutcomeService<S>;

    fn layer(&self, inner: S) -> OutcomeService<S> {
        OutcomeService {
            handle: self.handle.clone(),
            inner,
        }
    }
}

/// The service created by [`OutcomeLayer`].
#[derive(Debug, Clone)]
pub struct OutcomeService<S> {
    handle: Arc<WorkerHandle>,
    inner: S,
}

impl<S, J> Service<Task<J>> for OutcomeService<S>
where
    S: Service<Task<J>>,
    S::Future: Send + 'static,
    S::Response: Send + 'static,
    S::Error: Into<BoxDynError>,
{
    type Response = S::Response;
    type Error = BoxDynError;
    type Future = BoxFuture<'static, Result<S::Response, BoxDynError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxDynError>> {
        self.handle.state.slot.register(cx.waker());
        if self.handle.state.free_slots() == 0 {
            return Poll::Pending;
        }
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, task: Task<J>) -> Self::Future {
        let context = task.data().get::<JobContext>().cloned();
        let claim = task.data().get::<Claim>().cloned();
        let (Some(context), Some(claim)) = (context, claim) else {
            // Only a foreign backend hands out such a task; there is no outcome to report.
            return self.inner.call(task).map(|r| r.map_err(Into::into)).boxed();
        };
        let span = tracing::info_span!(
            "job",
            queue = self.handle.state.queue,
            job.id = %context.id,
            job.attempt = context.attempt,
        );
        let lost = claim.lost.clone();
        let mut run = JobRun::begin(self.handle.clone(), claim, context);
        let started = span.in_scope(|| catch_unwind(AssertUnwindSafe(|| self.inner.call(task))));
        async move {
            let result = match started {
                Ok(handler) => {
                    // The handler is dropped before the outcome is reported: Apalis must have forgotten the id when the
                    // job comes again.
                    let handler = async move {
                        match AssertUnwindSafe(handler).catch_unwind().await {
                            Ok(result) => result.map_err(Into::into),
                            Err(panic) => Err(JobPanic::new(&*panic).into()),
                        }
                    };
                    let ended = run.until_end(handler, &lost).await;
                    ended.unwrap_or_else(|| Err(LeaseLost.into()))
                }
                Err(panic) => Err(JobPanic::new(&*panic).into()),
            };
            run.end(&result);
            result
        }
        .instrument(span)
        .boxed()
    }
}

/// One run of a job. If it is dropped without an end (the worker was dropped), it releases the job.
struct JobRun {
    handle: Arc<WorkerHandle>,
    claim: Option<Claim>,
    context: JobContext,
    /// Whether it uses one of the slow slots.
    slow: bool,
}

impl JobRun {
    fn begin(handle: Arc<WorkerHandle>, claim: Claim, context: JobContext) -> Self {
        let state = &handle.state;
        let slots = if claim.slow {
            &state.slow
        } else {
            &state.running
        };
        slots.fetch_add(1, Ordering::AcqRel);
        Self {
            slow: claim.slow,
            handle,
            claim: Some(claim),
            context,
        }
    }

    /// Waits for the handler, and moves the run to a slow slot when it takes long. Returns `None` when the lease was
    /// lost.
    async fn until_end<F: Future>(
        &mut self,
        handler: F,
        lost: &CancellationToken,
    ) -> Option<F::Output> {
        let slow_after = self.handle.state.settings.slow_after();
        let ended = lost.run_until_cancelled(handler);
        let Some(slow_after) = slow_after.filter(|_| !self.slow) else {
            return ended.await;
        };
        tokio::pin!(ended);
        loop {
            match timeout(slow_after, &mut ended).await {
                Ok(result) => return result,
                Err(_) if self.moves_to_slow_slot() => return ended.await,
                Err(_) => {}
            }
        }
    }

    /// Returns `false` when all slow slots are in use.
    fn moves_to_slow_slot(&mut self) -> bool {
        let state = &self.handle.state;
        let most = state.slow_slots();
        let one_more = |taken: usize| (taken < most).then_some(taken + 1);
        self.slow = state
            .slow
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more)
            .is_ok();
        if self.slow {
            state.running.fetch_sub(1, Ordering::AcqRel);
            state.slot.wake();
        }
        self.slow
    }

    fn end<T>(mut self, result: &Result<T, BoxDynError>) {
        let Some(claim) = self.claim.take() else {
            return;
        };
        claim.ended.cancel();
        let (verdict, text) = match result {
            Ok(_) => (Verdict::Done, String::new()),
            Err(error) if error.is::<LeaseLost>() => {
                tracing::warn!("the lease went to another worker; the handler was stopped");
                return;
            }
            Err(error) => (judge(error), describe(error)),
        };
        match &verdict {
            Verdict::Failed(_) | Verdict::Dead => tracing::warn!(error = %text, "job failed"),
            Verdict::Later(_) => tracing::debug!(reason = %text, "job rescheduled"),
            Verdict::Done | Verdict::Released => {}
        }
        self.handle.acknowledge(Ack {
            claim,
            verdict,
            attempt: self.context.attempt,
            text,
        });
    }
}

impl Drop for JobRun {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            claim.ended.cancel();
            self.handle.acknowledge(Ack::released(claim));
        }
        let state = &self.handle.state;
        if self.slow {
            // Slow groups may have been skipped because no slot was free.
            if state.slow.fetch_sub(1, Ordering::AcqRel) >= state.slow_slots() {
                state.signal.raise();
            }
        } else {
            state.running.fetch_sub(1, Ordering::AcqRel);
            state.slot.wake();
        }
    }
}
