//! Runs a job: limits how many run at once, catches panics, drops the handler when the lease is
//! lost, and judges the outcome while the error is still an error and not its text.

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
use tracing::Instrument as _;

use super::{Engine, acks::Ack, claims::Claim};
use crate::{
    JobContext,
    outcome::{LeaseLost, Panicked, Verdict, describe, judge},
};

/// The layer a [`Backend`](crate::Backend) puts around its worker's service. Apalis applies it by
/// itself.
#[derive(Debug, Clone)]
pub struct OutcomeLayer {
    engine: Arc<Engine>,
}

impl OutcomeLayer {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }
}

impl<S> Layer<S> for OutcomeLayer {
    type Service = OutcomeService<S>;

    fn layer(&self, inner: S) -> OutcomeService<S> {
        OutcomeService {
            engine: self.engine.clone(),
            inner,
        }
    }
}

/// The service made by [`OutcomeLayer`].
#[derive(Debug, Clone)]
pub struct OutcomeService<S> {
    engine: Arc<Engine>,
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
        self.engine.core.slot.register(cx.waker());
        if self.engine.core.free_slots() == 0 {
            return Poll::Pending;
        }
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, task: Task<J>) -> Self::Future {
        let context = task.data().get::<JobContext>().cloned();
        let claim = task.data().get::<Claim>().cloned();
        let (Some(context), Some(claim)) = (context, claim) else {
            // Only a backend that is not ours hands out such a task; there is nothing to judge.
            return self.inner.call(task).map(|r| r.map_err(Into::into)).boxed();
        };
        let span = tracing::info_span!(
            "job",
            queue = self.engine.core.queue,
            job.id = %context.id,
            job.attempt = context.attempt,
        );
        let lost = claim.lost.clone();
        let run = Run::begin(self.engine.clone(), claim, context);
        let started = span.in_scope(|| catch_unwind(AssertUnwindSafe(|| self.inner.call(task))));
        async move {
            let result = match started {
                Ok(handler) => {
                    let handler = AssertUnwindSafe(handler).catch_unwind();
                    // The handler is dropped before the outcome is told: Apalis must not know the
                    // id any more when the job comes again.
                    tokio::select! {
                        biased;
                        () = lost.cancelled() => Err(LeaseLost.into()),
                        result = handler => result.map_or_else(
                            |panic| Err(Panicked::new(&*panic).into()),
                            |result| result.map_err(Into::into),
                        ),
                    }
                }
                Err(panic) => Err(Panicked::new(&*panic).into()),
            };
            run.end(&result);
            result
        }
        .instrument(span)
        .boxed()
    }
}

/// One run of a job. Dropped without an end (the worker was dropped) it gives the job back.
struct Run {
    engine: Arc<Engine>,
    claim: Option<Claim>,
    context: JobContext,
}

impl Run {
    fn begin(engine: Arc<Engine>, claim: Claim, context: JobContext) -> Self {
        engine.core.running.fetch_add(1, Ordering::AcqRel);
        Self {
            engine,
            claim: Some(claim),
            context,
        }
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
            Verdict::Later(_) => tracing::debug!(reason = %text, "job put off"),
            Verdict::Done | Verdict::Released => {}
        }
        self.engine.acknowledge(Ack {
            claim,
            verdict,
            attempt: self.context.attempt,
            text,
        });
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if let Some(claim) = self.claim.take() {
            claim.ended.cancel();
            self.engine.acknowledge(Ack::released(claim));
        }
        self.engine.core.running.fetch_sub(1, Ordering::AcqRel);
        self.engine.core.slot.wake();
    }
}
