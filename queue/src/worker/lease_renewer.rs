//! A task beside the worker that renews every lease it holds, takes back the leases of workers that died, repairs
//! what disagrees in Redis, and sends the heartbeat.
//!
//! It runs whether the worker is fetching, busy or stuck. A lease ends only with its process, with
//! Redis, or when the whole runtime stands still for longer than the lease.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::{Core, PATIENCE};
use crate::{keys::Keys, queue::micros, scripts};

/// Leases taken back, due jobs promoted and keys compared in one round.
const PAGE: usize = 500;
/// After Redis was away, owners have this long to renew leases that ran out meanwhile.
const GRACE: Duration = Duration::from_secs(3);
/// Jobs named in a heartbeat.
const MAX_NAMED: usize = 1_024;

pub(crate) async fn renew(core: Arc<Core>) {
    let mut rounds = interval(core.settings.round());
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = rounds.tick() => {
                maintain(&core).await;
                send_heartbeat(&core).await;
            }
            () = core.closed.cancelled() => break,
        }
    }
    settle(&core).await;
}

/// The worker has ended: what it held is on its way back. Keeps those leases until they are gone.
async fn settle(core: &Core) {
    let deadline = Instant::now() + PATIENCE;
    while core.claims.len() > 0 && Instant::now() < deadline {
        if timeout(core.settings.round(), core.claims.empty())
            .await
            .is_err()
        {
            maintain(core).await;
        }
    }
    register(core, "").await;
}

async fn maintain(core: &Core) {
    let claims = core.claims.all();
    let settings = &core.settings;
    let mut script = scripts::MAINTENANCE.prepare_invoke();
    script
        .key(&core.keys.base)
        .arg(micros(settings.lease))
        .arg(micros(settings.lease / 2))
        .arg(micros(GRACE))
        .arg(settings.max_crashes)
        .arg(PAGE)
        .arg(settings.keep_dead);
    for claim in &claims {
        script.arg(&*claim.id).arg(&*claim.group).arg(&*claim.token);
    }
    let Some((lost, taken, repairs)) = core.insist::<(Vec<String>, u64, u64)>(&script).await else {
        return;
    };
    if repairs > 0 {
        tracing::warn!(
            queue = core.queue,
            repairs,
            "keys of the queue were missing or disagreed, and were repaired"
        );
    }
    if taken > 0 {
        tracing::warn!(
            queue = core.queue,
            jobs = taken,
            "took back jobs whose worker is gone"
        );
    }
    for id in lost {
        // Acknowledged meanwhile: not lost, but no longer held either.
        if let Some(claim) = claims.iter().find(|claim| *claim.id == *id) {
            core.claims.lose(&claim.id, &claim.token);
        }
    }
}

async fn send_heartbeat(core: &Core) {
    let running: Vec<_> = core
        .claims
        .all()
        .iter()
        .take(MAX_NAMED)
        .map(|claim| json!({ "id": &*claim.id, "since": millis(claim.since) }))
        .collect();
    let about = json!({
        "name": core.name,
        "host": core.identity.host,
        "queues": [core.queue],
        "concurrency": core.identity.concurrency,
        "started_at": millis(core.started_at),
        "running": running,
        "slow": core.slow.load(Ordering::Acquire),
    });
    register(core, &about.to_string()).await;
}

/// `about` is what the registry tells of this worker; empty takes the worker out of it.
async fn register(core: &Core, about: &str) {
    let mut script = scripts::HEARTBEAT.prepare_invoke();
    script
        .key(Keys::registry(core.redis.prefix()).base)
        .arg(&core.name)
        .arg(about)
        .arg(core.queue);
    core.insist::<u64>(&script).await;
}

fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
