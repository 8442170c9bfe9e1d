//! Implements Apalis's persistence. The lease renewer sends heartbeats, because `Persisted` sends none while it holds a
//! batch; the layer reports outcomes, because it has the error as a value and not only its text.

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

use super::{WorkerHandle, WorkerState, acks::Ack, claims::Claim};
use crate::{
    JobContext, QueueError,
    queue::{EncodedJob, micros, push_encoded},
    scripts,
};

/// Maximum number of groups visited in vain, and of due jobs promoted, per fetch.
const PAGE: usize = 200;
/// How long a worker without free slots waits, unless it is woken.
const BUSY_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The persistence of one worker. Clones share the worker.
#[derive(Debug, Clone)]
pub(crate) struct JobPersistence {
    pub(crate) handle: Arc<WorkerHandle>,
}

/// id, arguments, attempts so far, max attempts, crashes, group, born, trace, slow
type FetchedRow = (String, Vec<u8>, u32, u32, u32, String, u64, String, bool);

impl Persistence for JobPersistence {
    type Compact = Vec<u8>;
    type Response = ();
    /// Only a push returns an error, to its caller. All others are handled inside, because an error would end the
    /// worker.
    type Error = QueueError;

    async fn register(&mut self, _: &WorkerContext) -> Result<(), QueueError> {
        self.handle.start();
        Ok(())
    }

    async fn heartbeat(&mut self, _: &WorkerContext) -> Result<(), QueueError> {
        Ok(())
    }

    /// Fetches as many jobs as there are free slots. Runs in a separate task: Apalis drops a pending fetch when it
    /// closes, and the response must not be lost with it.
    async fn fetch_next(&mut self, _: &WorkerContext) -> Result<Vec<Task<Vec<u8>>>, QueueError> {
        let handle = self.handle.clone();
        let (give, taken) = oneshot::channel();
        self.handle.state.tasks.spawn(async move {
            if let Err(unwanted) = give.send(fetch(&handle.state).await) {
                release(&handle, &unwanted);
            }
        });
        Ok(taken.await.unwrap_or_default())
    }

    async fn reenqueue_abandoned(
        &mut self,
        tasks: Vec<Task<Vec<u8>>>,
        _: &WorkerContext,
    ) -> Result<u64, QueueError> {
        Ok(release(&self.handle, &tasks))
    }

    /// No such events are sent: [`OutcomeLayer`](super::OutcomeLayer) acknowledges itself.
    async fn handle_events(
        &mut self,
        _: Vec<TaskEvent<()>>,
        _: &WorkerContext,
    ) -> Result<(), QueueError> {
        Ok(())
    }

    /// Tasks pushed through Apalis's sinks. Those without an id get a random one.
    async fn push_tasks(&mut self, tasks: Vec<Task<Vec<u8>>>) -> Result<(), QueueError> {
        let state = &self.handle.state;
        let mut tasks = tasks.into_iter().peekable();
        while tasks.peek().is_some() {
            let page = tasks.by_ref().take(PAGE).map(|task| encode(state, task));
            push_encoded(&state.redis, &state.keys, state.settings.lease, page).await?;
        }
        Ok(())
    }
}

fn encode(state: &WorkerState, task: Task<Vec<u8>>) -> EncodedJob {
    let (args, context) = task.take();
    let max_attempts = context.max_attempts().and_then(|n| u32::try_from(n).ok());
    let delay = context.run_at().map(|at| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Duration::from_secs(at).saturating_sub(now.unwrap_or_default())
    });
    EncodedJob {
        id: context
            .task_id()
            .map_or_else(|| ulid::Ulid::generate().to_string(), ToString::to_string),
        args,
        group: String::new(),
        max_attempts: max_attempts.unwrap_or(state.settings.max_attempts),
        delay_us: micros(delay.unwrap_or_default()),
        trace: String::new(),
    }
}

fn claims_of(tasks: &[Task<Vec<u8>>]) -> impl Iterator<Item = Claim> + '_ {
    tasks
        .iter()
        .filter_map(|task| task.data().get::<Claim>().cloned())
}

/// Releases buffered jobs that will not run here to the front of their lanes.
fn release(handle: &WorkerHandle, tasks: &[Task<Vec<u8>>]) -> u64 {
    let mut released = 0;
    for claim in claims_of(tasks) {
        claim.ended.cancel();
        handle.acknowledge(Ack::released(claim));
        released += 1;
    }
    released
}

async fn fetch(state: &WorkerState) -> Vec<Task<Vec<u8>>> {
    let want = state.settings.fetch_batch.min(state.free_slots());
    if want == 0 || state.closed.is_cancelled() || state.claims.len() > state.room() {
        state
            .sleep_us
            .store(micros(BUSY_POLL_INTERVAL), Ordering::Relaxed);
        return Vec::new();
    }
    let call = state.fetches.fetch_add(1, Ordering::Relaxed);
    let token: Arc<str> = format!("{}#{call}", state.name).into();
    let mut script = scripts::FETCH.prepare_invoke();
    script
        .key(&state.keys.base)
        .arg(&state.name)
        .arg(&*token)
        .arg(want)
        .arg(micros(state.settings.lease))
        .arg(state.settings.group_limit)
        .arg(PAGE)
        .arg(state.settings.slow_after_us())
        .arg(state.settings.fetch_batch.min(state.free_slow_slots()))
        .arg(state.slow_slots());
    let Some((next_due, more, mut rows)) = state
        .run_until_answered::<(i64, u64, Vec<FetchedRow>)>(&script)
        .await
    else {
        return Vec::new();
    };
    let poll = micros(state.settings.poll_interval);
    let idle_sleep = if more > 0 {
        0
    } else {
        // Timers have a resolution of a millisecond: a shorter sleep would end too early, again and again.
        u64::try_from(next_due).map_or(poll, |due| due.max(1_000).min(poll))
    };
    state.sleep_us.store(idle_sleep, Ordering::Relaxed);
    // Slow ones first, because they do not need a regular slot.
    rows.sort_by_key(|row| !row.8);
    let mut tasks = Vec::with_capacity(rows.len());
    for row in rows {
        tasks.push(claim(state, row, &token).await);
    }
    tasks
}

async fn claim(state: &WorkerState, row: FetchedRow, token: &Arc<str>) -> Task<Vec<u8>> {
    let (id, args, tries, max_attempts, crashes, group, born, trace, slow) = row;
    let claim = Claim::new(&id, &group, token, slow);
    state.claims.add(claim.clone()).await;
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
