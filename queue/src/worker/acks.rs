//! Acknowledgements: how runs ended, told to Redis in batches.
//!
//! Each is kept until Redis has taken it; the claim it belongs to stays held, so its lease is
//! renewed meanwhile. There are never more than claims, and those are bounded by the fetch.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc::UnboundedReceiver;

use super::{Core, claims::Claim};
use crate::{job::LONGEST_DELAY, outcome::Verdict, queue::micros, scripts};

/// Bounds the time one script run takes.
const BATCH: usize = 256;

#[derive(Debug)]
pub(crate) struct Ack {
    pub(crate) claim: Claim,
    pub(crate) verdict: Verdict,
    /// Which attempt ended, from 1.
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

/// Ends when the worker has ended and nothing is left to say.
pub(crate) async fn send(core: Arc<Core>, mut waiting: UnboundedReceiver<Ack>) {
    let mut batch = Vec::with_capacity(BATCH);
    while waiting.recv_many(&mut batch, BATCH).await > 0 {
        let mut script = scripts::ACK.prepare_invoke();
        script
            .key(&core.keys.base)
            .arg(core.settings.keep_done)
            .arg(core.settings.keep_dead)
            .arg(core.settings.slow_after_us());
        for ack in &batch {
            let (verdict, delay) = wire(&core, ack);
            script
                .arg(&*ack.claim.id)
                .arg(&*ack.claim.group)
                .arg(&*ack.claim.token)
                .arg(verdict)
                .arg(&ack.text)
                .arg(micros(delay.min(LONGEST_DELAY)));
        }
        match core.insist::<Vec<String>>(&script).await {
            Some(stale) => {
                for id in stale {
                    tracing::debug!(job.id = %id, "the lease had ended; this outcome changes nothing");
                }
            }
            None => tracing::warn!(
                jobs = batch.len(),
                "outcomes could not be told to Redis; the jobs run again when their leases end"
            ),
        }
        for ack in batch.drain(..) {
            core.claims.remove(&ack.claim.id, &ack.claim.token);
        }
    }
}

fn wire(core: &Core, ack: &Ack) -> (&'static str, Duration) {
    match ack.verdict {
        Verdict::Done => ("done", Duration::ZERO),
        Verdict::Failed(Some(delay)) => ("failed", delay),
        Verdict::Failed(None) => ("failed", core.settings.backoff.draw(ack.attempt)),
        Verdict::Later(delay) => ("later", delay),
        Verdict::Dead => ("dead", Duration::ZERO),
        Verdict::Released => ("released", Duration::ZERO),
    }
}
