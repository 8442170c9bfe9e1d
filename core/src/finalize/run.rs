//! One finalize run, step by step.

use super::{
    claim::{Claim, ClaimError, Claimant, Claimed, MAX_CRASHES},
    commit::{self, Ashore, CommitError, Failure, Storing},
    lease::Renewal,
    ledger::Ledger,
};
use crate::{
    combiner::CombineError,
    config::Config,
    content::{self, Known, NotAllowed},
    context::Landfall,
    failpoint,
    files::{self, Scope},
    minutes::{self, Counted},
    outbox::Written,
    storage::{
        StorageError, StorageKey,
        transfer::{self, Landing, Piece, TransferError},
    },
    trace, uploads,
};
use entity::{FileId, Timestamp, file::Model};
use sea_orm::DbErr;
use std::{error::Error, sync::Arc, time::Duration};
use tracing::Instrument;

/// The first retry after a fault of the storage waits about this long, each further one twice as long.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// No retry waits longer.
const LONGEST_RETRY: Duration = Duration::from_secs(600);

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Stored,
    Failed,
    /// To be tried at this moment: a fault that may pass, or another worker's lease.
    Later(Timestamp),
    /// Final already, or not there.
    Nothing,
    /// Another worker has taken the file over.
    LeaseLost,
}

/// Why a run could not even record how it ended; the lease runs out and another run follows.
#[derive(Debug, thiserror::Error)]
pub enum FinalizeError {
    #[error("the file could not be claimed")]
    Claim(#[source] CombineError<ClaimError>),
    #[error("the file could not be recorded as stored")]
    Store(#[source] CombineError<CommitError>),
    #[error("the outcome of the run could not be recorded")]
    Commit(#[from] CommitError),
}

impl FinalizeError {
    fn is_lease_lost(&self) -> bool {
        match self {
            Self::Commit(error) => matches!(error, CommitError::LeaseLost),
            Self::Store(CombineError::Failed(error)) => matches!(**error, CommitError::LeaseLost),
            Self::Store(_) | Self::Claim(_) => false,
        }
    }
}

/// Finalizes files; cheap to clone, one per process.
#[derive(Clone, Debug)]
pub struct Finalizer {
    landfall: Landfall,
    ledger: Ledger,
    worker: Arc<str>,
}

impl Finalizer {
    /// Must be called within a Tokio runtime: the ledger works in two tasks of its own. `worker` names this process
    /// in leases.
    #[must_use]
    pub fn new(landfall: &Landfall, worker: &str) -> Self {
        let claimant = Claimant {
            worker: worker.to_owned(),
            lease: landfall.config.workers.lease,
            overwrite: landfall.config.overwrites(),
        };
        Self {
            landfall: landfall.clone(),
            ledger: Ledger::start(&landfall.db, &landfall.clock, claimant),
            worker: worker.into(),
        }
    }

    /// Takes a staged file ashore: claims it, moves its bytes into storage while hashing them, commits it together
    /// with its event, and pushes the deliveries. May be called twice, late or never, by any worker: the outcome is
    /// the same.
    ///
    /// # Errors
    /// [`FinalizeError`] when the database is away; nothing is lost, the claim expires.
    pub async fn finalize(&self, id: FileId) -> Result<Outcome, FinalizeError> {
        failpoint!("finalize.received");
        let claimed = match self.ledger.claim(id).await.map_err(FinalizeError::Claim)? {
            Claim::Mine(claimed) => *claimed,
            Claim::Later(at) => return Ok(Outcome::Later(at)),
            Claim::Nothing => return Ok(Outcome::Nothing),
        };
        failpoint!("finalize.claimed");
        announce(&self.landfall, &claimed.replaced).await;
        let run = Run {
            landfall: &self.landfall,
            ledger: &self.ledger,
            claimed,
            worker: &self.worker,
        };
        let span = tracing::info_span!("store", file.id = %id);
        trace::follow(&span, run.file().traceparent.as_deref());
        // Boxed: the transfer's future is deep, and every layer of the worker would carry it.
        match Box::pin(run.to_the_end()).instrument(span).await {
            Err(error) if error.is_lease_lost() => {
                tracing::warn!(file.id = %id, "the lease was lost, another worker goes on with the file");
                run.tidy_after_loss().await;
                Ok(Outcome::LeaseLost)
            }
            ended => ended,
        }
    }
}

async fn announce(landfall: &Landfall, written: &[Written]) {
    let due: Vec<_> = written
        .iter()
        .flat_map(|written| written.due.iter().copied())
        .collect();
    if !due.is_empty() {
        landfall.dispatch.deliver(&due).await;
    }
}

/// What failed on the way into storage.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Transfer(#[from] TransferError),
    #[error("no URL can be made for the object")]
    Url(#[source] StorageError),
    #[error("the row does not say where the bytes wait")]
    Row(#[from] files::PiecesError),
    #[error(transparent)]
    NotAllowed(#[from] NotAllowed),
    #[error("the database does not say what the file was made of")]
    Database(#[from] DbErr),
}

impl Fault {
    /// The code of a fault that no retry can mend.
    fn permanent_code(&self) -> Option<&'static str> {
        match self {
            Self::Transfer(TransferError::StagingGone)
            | Self::Row(files::PiecesError::NotPieces(_)) => Some("staging_gone"),
            Self::NotAllowed(_) => Some("type_not_allowed"),
            Self::Transfer(TransferError::SizeMismatch { .. }) => Some("size_mismatch"),
            Self::Transfer(TransferError::DigestMismatch { .. }) => Some("digest_mismatch"),
            Self::Transfer(error) if !error.is_transient() => Some("storage_refused"),
            Self::Transfer(_) | Self::Url(_) | Self::Row(_) | Self::Database(_) => None,
        }
    }
}

struct Run<'a> {
    landfall: &'a Landfall,
    ledger: &'a Ledger,
    claimed: Claimed,
    worker: &'a str,
}

impl Run<'_> {
    fn file(&self) -> &Model {
        &self.claimed.file
    }

    async fn to_the_end(&self) -> Result<Outcome, FinalizeError> {
        let file = self.file();
        if file.finalize_crashes >= MAX_CRASHES {
            let message = format!(
                "finalizing the file ended its worker {} times",
                file.finalize_crashes
            );
            return self
                .fail(Failure {
                    code: "poison",
                    message,
                })
                .await;
        }
        let renewal = Renewal::start(
            self.landfall.db.clone(),
            self.landfall.clock.clone(),
            file.id,
            self.worker.to_owned(),
            self.landfall.config.workers.lease,
        );
        let landed = tokio::select! {
            biased;
            () = renewal.lost() => return Err(CommitError::LeaseLost.into()),
            landed = self.land() => landed,
        };
        match landed {
            Ok(ashore) => self.store(ashore).await,
            Err(Fault::Transfer(TransferError::KeyTaken)) => self.change_key().await,
            Err(fault) => self.after_fault(fault).await,
        }
    }

    async fn land(&self) -> Result<Ashore, Fault> {
        let file = self.file();
        let pieces: Vec<Piece> = files::staged_pieces(self.landfall.db.read(), file).await?;
        let content_type = self.content_type(&pieces).await?;
        let landing = Landing {
            pieces: &pieces,
            key: &self.claimed.key,
            content_type: &content_type,
            expected: file
                .declared_sha256
                .as_deref()
                .and_then(|text| text.parse().ok()),
            known: file
                .staged_sha256
                .as_deref()
                .and_then(|text| text.parse().ok()),
            rehash: self.landfall.config.workers.rehash,
            overwrite: self.landfall.config.overwrites(),
        };
        let landed =
            transfer::land(&self.landfall.staging, &self.landfall.storage, &landing).await?;
        let at = self.landfall.clock.now();
        let url = self
            .landfall
            .url_of(file.id, &self.claimed.key)
            .await
            .map_err(Fault::Url)?;
        failpoint!("finalize.landed");
        Ok(Ashore {
            landed,
            at,
            content_type,
            url,
        })
    }

    /// The type the file has, by what its client says and what its first bytes show. Whether it is taken in was decided
    /// while they came; of a joined upload it is decided here.
    async fn content_type(&self, pieces: &[Piece]) -> Result<String, Fault> {
        let file = self.file();
        let lists = &self.landfall.config.uploads;
        let is_joined = content::needs_bytes(lists)
            && uploads::is_joined(self.landfall.db.read(), file.id).await?;
        if !is_joined && !content::is_undeclared(&file.content_type) {
            return Ok(file.content_type.clone());
        }
        let head = transfer::head(&self.landfall.staging, pieces, content::HEAD).await?;
        let (name, declared) = (&file.original_filename, &file.content_type);
        Ok(match is_joined {
            true => content::judge(lists, name, declared, &head, Known::All)?,
            false => content::type_of(name, declared, &head),
        })
    }

    async fn store(&self, ashore: Ashore) -> Result<Outcome, FinalizeError> {
        let landfall = self.landfall;
        let mut file = self.file().clone();
        file.content_type.clone_from(&ashore.content_type);
        let stored = self.ledger.store(Storing { file, ashore }).await;
        let written = stored.map_err(FinalizeError::Store)?;
        failpoint!("finalize.committed");
        minutes::count(&landfall.db, &landfall.clock, &[(Counted::FilesStored, 1)]);
        announce(landfall, &written).await;
        failpoint!("finalize.announced");
        landfall.dispatch.settled(self.file().id).await;
        self.clear_staging().await;
        Ok(Outcome::Stored)
    }

    /// The row no longer speaks of these bytes; if removing them fails, the sweep finds them.
    async fn clear_staging(&self) {
        let pieces = files::staged_pieces(self.landfall.db.read(), self.file()).await;
        let keys: Vec<_> = pieces
            .unwrap_or_default()
            .iter()
            .map(|piece| piece.key)
            .collect();
        if let Err(error) = self.landfall.staging.delete(&keys).await {
            tracing::warn!(file.id = %self.file().id, error = &error as &dyn Error, "staging is left to the sweep");
        }
    }

    async fn fail(&self, failure: Failure) -> Result<Outcome, FinalizeError> {
        let landfall = self.landfall;
        let now = landfall.clock.now();
        tracing::warn!(file.id = %self.file().id, code = failure.code, "the file failed: {}", failure.message);
        let (file, worker) = (self.file().clone(), self.worker.to_owned());
        let written = landfall
            .db
            .write(move |t| {
                Box::pin(async move { commit::fail(t, &file, &worker, &failure, now).await })
            })
            .await?;
        failpoint!("finalize.failed");
        minutes::count(&landfall.db, &landfall.clock, &[(Counted::FilesFailed, 1)]);
        announce(landfall, &written).await;
        landfall.dispatch.settled(self.file().id).await;
        landfall.dispatch.purge(&[self.file().id]).await;
        Ok(Outcome::Failed)
    }

    async fn after_fault(&self, fault: Fault) -> Result<Outcome, FinalizeError> {
        if let Some(code) = fault.permanent_code() {
            return self
                .fail(Failure {
                    code,
                    message: fault.to_string(),
                })
                .await;
        }
        let (file, landfall) = (self.file(), self.landfall);
        let now = landfall.clock.now();
        if let Some(message) = given_up(&landfall.config, file, now, &fault) {
            return self
                .fail(Failure {
                    code: "storage_unavailable",
                    message,
                })
                .await;
        }
        let at = landfall.clock.after(retry_delay(file.finalize_attempts));
        tracing::warn!(
            file.id = %file.id, attempt = file.finalize_attempts + 1, retry_at = %at,
            error = &fault as &dyn Error, "storing the file failed, will try again",
        );
        self.put_off(None, at).await
    }

    /// Something that is not ours lies at the key: the file takes another, by the same fence, and begins again.
    async fn change_key(&self) -> Result<Outcome, FinalizeError> {
        let other = self.claimed.key.deduplicated(&mut rand::rng());
        tracing::warn!(file.id = %self.file().id, "an object the database does not know lies at the key, taking another");
        self.put_off(Some(other), self.landfall.clock.now()).await
    }

    async fn put_off(
        &self,
        key: Option<StorageKey>,
        at: Timestamp,
    ) -> Result<Outcome, FinalizeError> {
        let now = self.landfall.clock.now();
        let (file, worker) = (self.file().clone(), self.worker.to_owned());
        self.landfall
            .db
            .write(move |t| {
                Box::pin(async move { commit::put_off(t, &file, &worker, key, at, now).await })
            })
            .await?;
        failpoint!("finalize.put_off");
        Ok(Outcome::Later(at))
    }

    /// A worker that lost its lease after writing: if the file no longer owns the key, the object is nobody's.
    async fn tidy_after_loss(&self) {
        let current = files::get(self.landfall.db.read(), &Scope::All, self.file().id).await;
        if let Ok(Some(file)) = current
            && file.storage_key.as_deref() != Some(self.claimed.key.as_str())
            && !self.landfall.config.overwrites()
            && let Err(error) = self.landfall.storage.delete(&self.claimed.key).await
        {
            tracing::warn!(file.id = %file.id, error = &error as &dyn Error, "an object without a row is left to the audit");
        }
    }
}

fn given_up(config: &Config, file: &Model, now: Timestamp, fault: &Fault) -> Option<String> {
    let patience = config.workers.retry_for;
    let waited = (now - file.staged_at.unwrap_or(file.created_at))
        .to_std()
        .unwrap_or_default();
    (waited > patience).then(|| {
        format!(
            "storage did not take the file within {}: {fault}",
            humantime::format_duration(patience)
        )
    })
}

/// Full jitter over an exponentially growing span (Brooker, «Exponential backoff and jitter», 2015), at least half
/// a second so that a fault of a moment is given a moment.
fn retry_delay(attempts: i32) -> Duration {
    let exponent = u32::try_from(attempts.clamp(0, 20)).unwrap_or(0);
    let span = FIRST_RETRY
        .saturating_mul(2_u32.saturating_pow(exponent))
        .min(LONGEST_RETRY);
    Duration::from_millis(500) + span.mul_f64(rand::random::<f64>())
}
