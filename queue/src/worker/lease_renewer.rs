//! A task beside the worker that renews its leases, reclaims the leases of dead workers, repairs inconsistent keys in
//! Redis, and sends the heartbeat.
//!
//! It runs whether the worker is fetching, busy or stuck. A lease expires only if its process dies, Redis fails, or the
//! whole runtime stalls for longer than the lease.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::{SHUTDOWN_TIMEOUT, WorkerState};
use crate::{keys::Keys, queue::micros, scripts};

/// Maximum number of leases reclaimed, due jobs promoted and keys compared per round.
const PAGE: usize = 500;
/// How long owners have, after an outage of Redis, to renew leases that expired in the meantime.
const GRACE: Duration = Duration::from_secs(3);
/// Maximum number of jobs named in a heartbeat.
const MAX_NAMED: usize = 1_024;

pub(crate) async fn renew(state: Arc<WorkerState>) {
    let mut rounds = interval(state.settings.round());
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = rounds.tick() => {
                maintain(&state).await;
                send_heartbeat(&state).await;
            }
            () = state.closed.cancelled() => break,
        }
    }
    settle(&state).await;
}

/// The worker has ended and is releasing its jobs. Renews their leases until they are released.
async fn settle(state: &WorkerState) {
    let deadline = Instant::now() + SHUTDOWN_TIMEOUT;
    while state.claims.len() > 0 && Instant::now() < deadline {
        if timeout(state.settings.round(), state.claims.empty())
            .await
            .is_err()
        {
            maintain(state).await;
        }
    }
    register(state, "").await;
}

async fn maintain(state: &WorkerState) {
    let claims = state.claims.all();
    let settings = &state.settings;
    let mut script = scripts::MAINTENANCE.prepare_invoke();
    script
        .key(&state.keys.base)
        .arg(micros(settings.lease))
        .arg(micros(settings.lease / 2))
        .arg(micros(GRACE))
        .arg(settings.max_crashes)
        .arg(PAGE)
        .arg(settings.keep_dead);
    for claim in &claims {
        script.arg(&*claim.id).arg(&*claim.group).arg(&*claim.token);
    }
    let Some((lost, taken, repairs)) = state
        .run_until_answered::<(Vec<String>, u64, u64)>(&script)
        .await
    else {
        return;
    };
    if repairs > 0 {
        tracing::warn!(
            queue = state.queue,
            repairs,
            "keys of the queue were missing or inconsistent, and were repaired"
        );
    }
    if taken > 0 {
        tracing::warn!(
            queue = state.queue,
            jobs = taken,
            "reclaimed jobs of dead workers"
        );
    }
    for id in lost {
        // Acknowledged in the meantime: not lost, but no longer held either.
        if let Some(claim) = claims.iter().find(|claim| *claim.id == *id) {
            state.claims.lose(&claim.id, &claim.token);
        }
    }
}

async fn send_heartbeat(state: &WorkerState) {
    let running: Vec<_> = state
        .claims
        .all()
        .iter()
        .take(MAX_NAMED)
        .map(|claim| json!({ "id": &*claim.id, "since": millis(claim.since) }))
        .collect();
    let about = json!({
        "name": state.name,
        "host": state.identity.host,
        "queues": [state.queue],
        "concurrency": state.identity.concurrency,
        "started_at": millis(state.started_at),
        "running": running,
        "slow": state.slow.load(Ordering::Acquire),
    });
    register(state, &about.to_string()).await;
}

/// `about` is the description of this worker in the registry; an empty one removes the worker.
async fn register(state: &WorkerState, about: &str) {
    let mut script = scripts::HEARTBEAT.prepare_invoke();
    script
        .key(Keys::registry(state.redis.prefix()).base)
        .arg(&state.name)
        .arg(about)
        .arg(state.queue);
    state.run_until_answered::<u64>(&script).await;
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
