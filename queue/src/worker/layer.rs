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
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
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
        let mut run = Run::begin(self.engine.clone(), claim, context);
        let started = span.in_scope(|| catch_unwind(AssertUnwindSafe(|| self.inner.call(task))));
        async move {
            let result = match started {
                Ok(handler) => {
                    // The handler is dropped before the outcome is reported: Apalis must not know the
                    // id any more when the job comes again.
                    let handler = async move {
                        match AssertUnwindSafe(handler).catch_unwind().await {
                            Ok(result) => result.map_err(Into::into),
                            Err(panic) => Err(Panicked::new(&*panic).into()),
                        }
                    };
                    let ended = run.until_end(handler, &lost).await;
                    ended.unwrap_or_else(|| Err(LeaseLost.into()))
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
    /// Whether it holds one of the slow slots.
    slow: bool,
}

impl Run {
    fn begin(engine: Arc<Engine>, claim: Claim, context: JobContext) -> Self {
        let core = &engine.core;
        let slots = if claim.slow {
            &core.slow
        } else {
            &core.running
        };
        slots.fetch_add(1, Ordering::AcqRel);
        Self {
            slow: claim.slow,
            engine,
            claim: Some(claim),
            context,
        }
    }

    /// Waits for the handler, and moves to a slow slot when that takes long. `None` when the lease was lost.
    async fn until_end<F: Future>(
        &mut self,
        handler: F,
        lost: &CancellationToken,
    ) -> Option<F::Output> {
        let slow_after = self.engine.core.settings.slow_after();
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

    /// `false` when all slow slots are taken.
    fn moves_to_slow_slot(&mut self) -> bool {
        let core = &self.engine.core;
        let most = core.slow_slots();
        let one_more = |taken: usize| (taken < most).then_some(taken + 1);
        self.slow = core
            .slow
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more)
            .is_ok();
        if self.slow {
            core.running.fetch_sub(1, Ordering::AcqRel);
            core.slot.wake();
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
        let core = &self.engine.core;
        if self.slow {
            // Slow groups may have been passed over for want of a slot.
            if core.slow.fetch_sub(1, Ordering::AcqRel) >= core.slow_slots() {
                core.signal.raise();
            }
        } else {
            core.running.fetch_sub(1, Ordering::AcqRel);
            core.slot.wake();
        }
    }
}
