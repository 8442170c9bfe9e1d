//! Acknowledgements: reports the outcomes of runs to Redis, in batches.
//!
//! Each is kept until Redis has accepted it; until then its claim stays held, so its lease is renewed. There are never
//! more acknowledgements than claims, whose number is bounded by the fetch.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc::UnboundedReceiver;

use super::{WorkerState, claims::Claim};
use crate::{job::MAX_DELAY, outcome::Verdict, queue::micros, scripts};

/// Bounds the duration of one script run.
const BATCH: usize = 256;

#[derive(Debug)]
pub(crate) struct Ack {
    pub(crate) claim: Claim,
    pub(crate) verdict: Verdict,
    /// The number of the attempt that ended, from 1.
    pub(crate) attempt: u32,
    pub(crate) text: String,
}

impl Ack {
    pub(crate) fn released(claim: Claim) -> Self {
        Self {
            claim,
            verdict: Verdict::Released,
            attempt: 1,
            text: String::new(),
        }
    }
}

/// Ends when the worker has ended and everything is reported.
pub(crate) async fn send(state: Arc<WorkerState>, mut waiting: UnboundedReceiver<Ack>) {
    let mut batch = Vec::with_capacity(BATCH);
    while waiting.recv_many(&mut batch, BATCH).await > 0 {
        let mut script = scripts::ACK.prepare_invoke();
        script
            .key(&state.keys.base)
            .arg(state.settings.keep_done)
            .arg(state.settings.keep_dead)
            .arg(state.settings.slow_after_us());
        for ack in &batch {
            let (verdict, delay) = wire(&state, ack);
            script
                .arg(&*ack.claim.id)
                .arg(&*ack.claim.group)
                .arg(&*ack.claim.token)
                .arg(verdict)
                .arg(&ack.text)
                .arg(micros(delay.min(MAX_DELAY)));
        }
        match state.run_until_answered::<Vec<String>>(&script).await {
            Some(stale) => {
                for id in stale {
                    tracing::debug!(job.id = %id, "the lease had expired; this outcome is ignored");
                }
            }
            None => tracing::warn!(
                jobs = batch.len(),
                "outcomes could not be reported to Redis; the jobs run again when their leases expire"
            ),
        }
        for ack in batch.drain(..) {
            state.claims.remove(&ack.claim.id, &ack.claim.token);
        }
    }
}

fn wire(state: &WorkerState, ack: &Ack) -> (&'static str, Duration) {
    match ack.verdict {
        Verdict::Done => ("done", Duration::ZERO),
        Verdict::Failed(Some(delay)) => ("failed", delay),
        Verdict::Failed(None) => ("failed", state.settings.backoff.draw(ack.attempt)),
        Verdict::Later(delay) => ("later", delay),
        Verdict::Dead => ("dead", Duration::ZERO),
        Verdict::Released => ("released", Duration::ZERO),
    }
}
