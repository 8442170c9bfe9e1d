//! The finalizer of a process: which files it runs, which of them concurrently, and how it releases its claims.

use super::{
    batched_writes::FinalizeWrites,
    claim::{self, ClaimError, ClaimOutcome, Claimant, ClaimedFile},
    commit::{self, CommitError},
    execute::{FinalizeRun, announce},
    heartbeat::Heartbeat,
    run_gate::RunGate,
};
use crate::{app::App, batcher::BatchError, clock::Clock, db::Database, failpoint, trace_context};
use entity::{FileId, Timestamp};
use sea_orm::DbErr;
use std::{
    collections::HashSet,
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// Retry delay of a suspect that cannot run alone yet.
const SUSPECT_RETRY: Duration = Duration::from_secs(1);

/// The outcome of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinalizeOutcome {
    Stored,
    Failed,
    /// To be retried at this time: after a transient fault, or because another worker holds the lease.
    Later(Timestamp),
    /// The file is already final, or does not exist.
    Nothing,
    /// The lease was lost, and with it the claim; another worker may have the file.
    LeaseLost,
    /// The process is shutting down. The claim was released, and another worker can take it at once.
    Released,
}

/// Why the outcome of a run could not be recorded. The claim is released or its lease expires, and another run follows.
#[derive(Debug, thiserror::Error)]
pub enum FinalizeError {
    #[error("the file could not be claimed")]
    Claim(#[source] BatchError<ClaimError>),
    #[error("the suspect file could not be claimed")]
    ClaimAlone(#[source] ClaimError),
    #[error("the heartbeat could not be recorded")]
    Heartbeat(#[source] DbErr),
    #[error("the file could not be recorded as stored")]
    Store(#[source] BatchError<CommitError>),
    #[error("the outcome of the run could not be recorded")]
    Commit(#[from] CommitError),
}

impl FinalizeError {
    fn is_lease_lost(&self) -> bool {
        match self {
            Self::Commit(error) => matches!(error, CommitError::LeaseLost),
            Self::Store(BatchError::Failed(error)) => matches!(**error, CommitError::LeaseLost),
            Self::Store(_) | Self::Claim(_) | Self::ClaimAlone(_) | Self::Heartbeat(_) => false,
        }
    }
}

/// Finalizes files; cheap to clone, one per process.
#[derive(Clone, Debug)]
pub struct Finalizer {
    app: App,
    writes: FinalizeWrites,
    claimant: Arc<Claimant>,
    worker: Arc<str>,
    gate: Arc<RunGate>,
    heartbeat: Arc<Heartbeat>,
    running: Arc<Mutex<HashSet<FileId>>>,
    drained: CancellationToken,
}

impl Finalizer {
    /// Must be called within a Tokio runtime, because it starts tasks. `worker` identifies this process in leases.
    #[must_use]
    pub fn new(app: &App, worker: &str) -> Self {
        let claimant = Claimant {
            worker: worker.to_owned(),
            lease: app.config.workers.lease,
            overwrite: app.config.overwrites(),
        };
        let name: Arc<str> = worker.into();
        let (db, clock) = (&app.db, &app.clock);
        Self {
            app: app.clone(),
            writes: FinalizeWrites::start(db, clock, claimant.clone()),
            heartbeat: Arc::new(Heartbeat::start(db, clock, &name, claimant.lease)),
            claimant: Arc::new(claimant),
            worker: name,
            gate: Arc::default(),
            running: Arc::default(),
            drained: CancellationToken::new(),
        }
    }

    /// Aborts all transfers and releases their claims once `drained` is cancelled.
    #[must_use]
    pub fn drained_by(mut self, drained: CancellationToken) -> Self {
        self.drained = drained;
        self
    }

    /// Finalizes a staged file: claims it, transfers its bytes into storage while hashing them, commits it together
    /// with its event, and pushes the deliveries. May be called repeatedly, late or never, by any worker; the result is
    /// the same.
    ///
    /// If the future is dropped, the claim is released, and nothing counts against the file.
    ///
    /// # Errors
    /// [`FinalizeError`] when the database is unreachable; nothing is lost.
    pub async fn finalize(&self, id: FileId) -> Result<FinalizeOutcome, FinalizeError> {
        failpoint!("finalize.received");
        let Some(_entered) = self.enter(id) else {
            let lease = self.claimant.lease;
            return Ok(FinalizeOutcome::Later(self.app.clock.after(lease / 3)));
        };
        let shared = tokio::select! {
            biased;
            () = self.drained.cancelled() => return Ok(FinalizeOutcome::Released),
            shared = self.gate.enter() => shared,
        };
        match self.writes.claim(id).await.map_err(FinalizeError::Claim)? {
            ClaimOutcome::Claimed(claimed) => self.run(*claimed).await,
            ClaimOutcome::Suspect => {
                drop(shared);
                self.finalize_alone(id).await
            }
            ClaimOutcome::Later(at) => Ok(FinalizeOutcome::Later(at)),
            ClaimOutcome::Nothing => Ok(FinalizeOutcome::Nothing),
        }
    }

    /// Runs a suspect file while nothing else runs in this process, so that if the process dies, the file is the cause.
    async fn finalize_alone(&self, id: FileId) -> Result<FinalizeOutcome, FinalizeError> {
        let entered = tokio::select! {
            biased;
            () = self.drained.cancelled() => return Ok(FinalizeOutcome::Released),
            entered = self.gate.enter_alone() => entered,
        };
        let Some(_alone) = entered else {
            return Ok(FinalizeOutcome::Later(self.app.clock.after(SUSPECT_RETRY)));
        };
        let beaten = self.heartbeat.set_alone(Some(id)).await;
        beaten.map_err(FinalizeError::Heartbeat)?;
        let (db, clock) = (&self.app.db, &self.app.clock);
        let claim = claim::claim_alone(db, clock, &self.claimant, id).await;
        let outcome = match claim {
            Ok(ClaimOutcome::Claimed(claimed)) => self.run(*claimed).await,
            Ok(ClaimOutcome::Suspect) => Ok(FinalizeOutcome::Later(clock.after(SUSPECT_RETRY))),
            Ok(ClaimOutcome::Later(at)) => Ok(FinalizeOutcome::Later(at)),
            Ok(ClaimOutcome::Nothing) => Ok(FinalizeOutcome::Nothing),
            Err(error) => Err(FinalizeError::ClaimAlone(error)),
        };
        // The next heartbeat corrects it.
        if let Err(error) = self.heartbeat.set_alone(None).await {
            tracing::debug!(%error, "the heartbeat could not be recorded");
        }
        outcome
    }

    async fn run(&self, claimed: ClaimedFile) -> Result<FinalizeOutcome, FinalizeError> {
        let id = claimed.file.id;
        let claim = ClaimGuard {
            db: &self.app.db,
            clock: &self.app.clock,
            worker: &self.worker,
            id,
            ended: false,
        };
        failpoint!("finalize.claimed");
        announce(&self.app, &claimed.replaced).await;
        let run = FinalizeRun {
            app: &self.app,
            writes: &self.writes,
            claimed,
            worker: &self.worker,
            drained: &self.drained,
        };
        let span = tracing::info_span!("store", file.id = %id);
        trace_context::follow(&span, run.file().traceparent.as_deref());
        // Boxed, because the future of a transfer is large and every layer of the worker would carry it.
        let ended = Box::pin(run.execute()).instrument(span).await;
        match ended {
            Ok(FinalizeOutcome::Released) => {
                claim.release().await;
                Ok(FinalizeOutcome::Released)
            }
            Err(error) if error.is_lease_lost() => {
                tracing::warn!(file.id = %id, "the lease was lost, the file is left to the next claim");
                claim.release().await;
                Ok(FinalizeOutcome::LeaseLost)
            }
            Err(error) => {
                claim.release().await;
                Err(error)
            }
            ended => {
                claim.end();
                ended
            }
        }
    }

    /// Releases all claims of this process at shutdown, so that other workers can take them at once.
    ///
    /// # Errors
    /// Database errors; the leases then expire.
    pub async fn end(&self) -> Result<(), DbErr> {
        let (worker, now) = (self.worker.to_string(), self.app.clock.now());
        let released = self.app.db.write(move |transaction| {
            Box::pin(async move { commit::release_claims(transaction, &worker, None, now).await })
        });
        let released = released.await?;
        if !released.is_empty() {
            self.app.dispatch.finalize(&released).await;
        }
        self.heartbeat.end().await
    }

    /// Whether runs fail because the database does not respond, of which the log has a line.
    #[must_use]
    pub fn is_database_unreachable(&self) -> bool {
        self.app.db.is_unreachable()
    }

    /// Returns `None` if this process is already running the file.
    fn enter(&self, id: FileId) -> Option<RunningFile> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.insert(id).then(|| RunningFile {
            running: Arc::clone(&self.running),
            id,
        })
    }
}

/// Marks a file as running in this process until dropped.
struct RunningFile {
    running: Arc<Mutex<HashSet<FileId>>>,
    id: FileId,
}

impl Drop for RunningFile {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.remove(&self.id);
    }
}

/// A claim that must be ended. If it is dropped before (the handler was dropped, or panicked), it is released in the
/// background.
struct ClaimGuard<'a> {
    db: &'a Database,
    clock: &'a Clock,
    worker: &'a Arc<str>,
    id: FileId,
    ended: bool,
}

impl ClaimGuard<'_> {
    fn end(mut self) {
        self.ended = true;
    }

    async fn release(mut self) {
        self.ended = true;
        let released = release(
            self.db.clone(),
            self.worker.to_string(),
            self.id,
            self.clock.now(),
        );
        if let Err(error) = released.await {
            tracing::warn!(file.id = %self.id, error = &error as &dyn Error, "the claim could not be released, its lease will expire");
        }
    }
}

impl Drop for ClaimGuard<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        // Without a runtime the process is exiting, and releases all its claims itself.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let released = release(
                self.db.clone(),
                self.worker.to_string(),
                self.id,
                self.clock.now(),
            );
            runtime.spawn(async move {
                if let Err(error) = released.await {
                    tracing::warn!(
                        error = &error as &dyn Error,
                        "a claim could not be released, its lease will expire"
                    );
                }
            });
        }
    }
}

async fn release(db: Database, worker: String, id: FileId, now: Timestamp) -> Result<(), DbErr> {
    db.write(move |transaction| {
        Box::pin(async move {
            commit::release_claims(transaction, &worker, Some(id), now)
                .await
                .map(drop)
        })
    })
    .await
}
