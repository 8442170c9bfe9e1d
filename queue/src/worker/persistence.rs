//! What Apalis asks of a persistence. Heartbeats are the lease renewer's business, because `Persisted`
//! sends none while it holds a batch; outcomes go through the layer, which sees the error itself
//! and not its text.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use apalis_core::{
    backend::persistence::{Persistence, TaskEvent},
    task::{Task, builder::TaskBuilder, task_id::TaskId},
    worker::context::WorkerContext,
};
use tokio::sync::oneshot;

use super::{Core, Engine, acks::Ack, claims::Claim};
use crate::{
    JobContext, QueueError,
    queue::{Encoded, micros, push_encoded},
    scripts,
};

/// Groups looked at in vain, and due jobs promoted, in one fetch.
const PAGE: usize = 200;
/// How long a worker that cannot take more waits, unless it is woken.
const BUSY: Duration = Duration::from_millis(50);

/// The persistence of one worker. Clones share the worker.
#[derive(Debug, Clone)]
pub(crate) struct Leases {
    pub(crate) engine: Arc<Engine>,
}

/// id, arguments, attempts so far, max attempts, crashes, group, born, trace, slow
type Row = (String, Vec<u8>, u32, u32, u32, String, u64, String, bool);

impl Persistence for Leases {
    type Compact = Vec<u8>;
    type Response = ();
    /// Only a push returns one, to whoever pushed. All else deals with errors inside: one that got
    /// out would end the worker.
    type Error = QueueError;

    async fn register(&mut self, _: &WorkerContext) -> Result<(), QueueError> {
        self.engine.start();
        Ok(())
    }

    async fn heartbeat(&mut self, _: &WorkerContext) -> Result<(), QueueError> {
        Ok(())
    }

    /// Takes as many jobs as there are free slots. It runs in a task of its own: Apalis drops a
    /// fetch that is under way when it closes, and the answer must not be lost with it.
    async fn fetch_next(&mut self, _: &WorkerContext) -> Result<Vec<Task<Vec<u8>>>, QueueError> {
        let engine = self.engine.clone();
        let (give, taken) = oneshot::channel();
        self.engine.core.tasks.spawn(async move {
            if let Err(unwanted) = give.send(fetch(&engine.core).await) {
                release(&engine, &unwanted);
            }
        });
        Ok(taken.await.unwrap_or_default())
    }

    async fn reenqueue_abandoned(
        &mut self,
        tasks: Vec<Task<Vec<u8>>>,
        _: &WorkerContext,
    ) -> Result<u64, QueueError> {
        Ok(release(&self.engine, &tasks))
    }

    /// Nothing sends such events: [`OutcomeLayer`](super::OutcomeLayer) acknowledges by itself.
    async fn handle_events(
        &mut self,
        _: Vec<TaskEvent<()>>,
        _: &WorkerContext,
    ) -> Result<(), QueueError> {
        Ok(())
    }

    /// Tasks pushed through Apalis's sinks. Without an id they get a random one.
    async fn push_tasks(&mut self, tasks: Vec<Task<Vec<u8>>>) -> Result<(), QueueError> {
        let core = &self.engine.core;
        let mut tasks = tasks.into_iter().peekable();
        while tasks.peek().is_some() {
            let page = tasks.by_ref().take(PAGE).map(|task| encode(core, task));
            push_encoded(&core.redis, &core.keys, core.settings.lease, page).await?;
        }
        Ok(())
    }
}

fn encode(core: &Core, task: Task<Vec<u8>>) -> Encoded {
    let (args, context) = task.take();
    let max_attempts = context.max_attempts().and_then(|n| u32::try_from(n).ok());
    let delay = context.run_at().map(|at| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Duration::from_secs(at).saturating_sub(now.unwrap_or_default())
    });
    Encoded {
        id: context
            .task_id()
            .map_or_else(|| ulid::Ulid::generate().to_string(), ToString::to_string),
        args,
        group: String::new(),
        max_attempts: max_attempts.unwrap_or(core.settings.max_attempts),
        delay_us: micros(delay.unwrap_or_default()),
        trace: String::new(),
    }
}

fn claims_of(tasks: &[Task<Vec<u8>>]) -> impl Iterator<Item = Claim> + '_ {
    tasks
        .iter()
        .filter_map(|task| task.data().get::<Claim>().cloned())
}

/// Buffered jobs that will not run here go back to the front of their lanes.
fn release(engine: &Engine, tasks: &[Task<Vec<u8>>]) -> u64 {
    let mut released = 0;
    for claim in claims_of(tasks) {
        claim.ended.cancel();
        engine.acknowledge(Ack::released(claim));
        released += 1;
    }
    released
}

async fn fetch(core: &Core) -> Vec<Task<Vec<u8>>> {
    let want = core.settings.fetch_batch.min(core.free_slots());
    if want == 0 || core.closed.is_cancelled() || core.claims.len() > core.room() {
        core.nap_us.store(micros(BUSY), Ordering::Relaxed);
        return Vec::new();
    }
    let call = core.fetches.fetch_add(1, Ordering::Relaxed);
    let token: Arc<str> = format!("{}#{call}", core.name).into();
    let mut script = scripts::FETCH.prepare_invoke();
    script
        .key(&core.keys.base)
        .arg(&core.name)
        .arg(&*token)
        .arg(want)
        .arg(micros(core.settings.lease))
        .arg(core.settings.group_limit)
        .arg(PAGE)
        .arg(core.settings.slow_after_us())
        .arg(core.settings.fetch_batch.min(core.free_slow_slots()))
        .arg(core.slow_slots());
    let Some((next_due, more, mut rows)) = core.insist::<(i64, u64, Vec<Row>)>(&script).await
    else {
        return Vec::new();
    };
    let poll = micros(core.settings.poll_interval);
    let nap = if more > 0 {
        0
    } else {
        // Timers count in milliseconds: a nap of less would end too early, again and again.
        u64::try_from(next_due).map_or(poll, |due| due.max(1_000).min(poll))
    };
    core.nap_us.store(nap, Ordering::Relaxed);
    // Slow ones first: they do not wait for one of the other slots.
    rows.sort_by_key(|row| !row.8);
    let mut tasks = Vec::with_capacity(rows.len());
    for row in rows {
        tasks.push(claim(core, row, &token).await);
    }
    tasks
}

async fn claim(core: &Core, row: Row, token: &Arc<str>) -> Task<Vec<u8>> {
    let (id, args, tries, max_attempts, crashes, group, born, trace, slow) = row;
    let claim = Claim::new(&id, &group, token, slow);
    core.claims.add(claim.clone()).await;
    let context = JobContext {
        id: id.clone(),
        attempt: tries.saturating_add(1),
        max_attempts,
        crashes,
        trace: Some(trace).filter(|trace| !trace.is_empty()),
        group: Some(group).filter(|group| !group.is_empty()),
        enqueued_at: UNIX_EPOCH + Duration::from_micros(born),
    };
    TaskBuilder::new(args)
        .task_id(TaskId::from_string(id))
        .attempt(tries as usize)
        .max_attempts(max_attempts as usize)
        .data(context)
        .data(claim)
        .build()
}
