//! One finalize run, step by step.

use super::{
    batched_writes::FinalizeWrites,
    claim::ClaimedFile,
    commit::{self, CommitError, CommitRequest, PermanentFailure, VerifiedObject},
    fault::{FaultVerdict, FinalizeFault},
    finalizer::{FinalizeError, FinalizeOutcome},
    lease::LeaseRenewal,
};
use crate::{
    activity::{self, ActivityMetric},
    app::App,
    config::{Config, UploadsConfig},
    failpoint, files,
    installation::{self, MarkedLocation},
    media_policy::{self, HeadExtent},
    outbox::WrittenEvent,
    storage::StorageKey,
    transfer::{self, Piece, TransferError, TransferRequest},
    upload_links, uploads,
};
use entity::{FileId, Timestamp, file::Model};
use std::{error::Error, time::Duration};
use tokio_util::sync::CancellationToken;

/// The base retry delay after a storage fault; it doubles with each attempt.
const MIN_RETRY_DELAY: Duration = Duration::from_secs(1);

/// The maximum retry delay.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(600);

/// Pushes the deliveries of committed events.
pub(super) async fn announce(app: &App, written: &[WrittenEvent]) {
    let due: Vec<_> = written
        .iter()
        .flat_map(|written| written.due.iter().copied())
        .collect();
    if !due.is_empty() {
        app.dispatch.deliver(&due).await;
    }
}

/// A run of a claimed file.
pub(super) struct FinalizeRun<'a> {
    pub(super) app: &'a App,
    pub(super) writes: &'a FinalizeWrites,
    pub(super) claimed: ClaimedFile,
    pub(super) worker: &'a str,
    /// Cancelled when the process must release its claims.
    pub(super) drained: &'a CancellationToken,
}

impl FinalizeRun<'_> {
    pub(super) fn file(&self) -> &Model {
        &self.claimed.file
    }

    /// Transfers the file's bytes into storage and commits it, or records why it could not.
    ///
    /// # Errors
    /// [`FinalizeError`]; the caller must release the claim.
    pub(super) async fn execute(&self) -> Result<FinalizeOutcome, FinalizeError> {
        let file = self.file();
        if self.claimed.quarantined {
            let message = format!(
                "{} processes died while they finalized this file and nothing else",
                file.alone_deaths
            );
            let code = "poison";
            return self.fail(PermanentFailure { code, message }, true).await;
        }
        let renewal = LeaseRenewal::start(
            self.app.db.clone(),
            self.app.clock.clone(),
            file.id,
            self.worker.to_owned(),
            self.app.config.workers.lease,
        );
        let transferred = tokio::select! {
            biased;
            () = renewal.lost() => return Err(CommitError::LeaseLost.into()),
            () = self.drained.cancelled() => return Ok(FinalizeOutcome::Released),
            transferred = self.transfer() => transferred,
        };
        match transferred {
            Ok(transferred) => self.store(transferred).await,
            Err(FinalizeFault::Transfer(TransferError::KeyTaken)) => self.change_key().await,
            Err(fault) => self.after_fault(fault).await,
        }
    }

    async fn transfer(&self) -> Result<VerifiedObject, FinalizeFault> {
        let file = self.file();
        let pieces: Vec<Piece> = files::staged_pieces(self.app.db.read(), file).await?;
        failpoint!("finalize.transferring");
        let content_type = self.content_type(&pieces).await?;
        let request = TransferRequest {
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
            rehash: self.app.config.workers.rehash,
            overwrite: self.app.config.overwrites(),
        };
        let object = transfer::transfer(&self.app.staging, &self.app.storage, &request).await?;
        let at = self.app.clock.now();
        let url = self
            .app
            .url_of(file.id, &self.claimed.key)
            .await
            .map_err(FinalizeFault::Url)?;
        failpoint!("finalize.transferred");
        Ok(VerifiedObject {
            object,
            at,
            content_type,
            url,
        })
    }

    /// Determines the media type from the declared type and the first bytes. Whether the type is allowed was checked
    /// while the bytes were received; for a concatenated upload it is checked here.
    async fn content_type(&self, pieces: &[Piece]) -> Result<String, FinalizeFault> {
        let file = self.file();
        let joined_lists = self.joined_lists().await?;
        if joined_lists.is_none() && !media_policy::is_undeclared(&file.content_type) {
            return Ok(file.content_type.clone());
        }
        let head = transfer::head(&self.app.staging, pieces, media_policy::MAX_HEAD_LEN).await?;
        let (name, declared) = (&file.original_filename, &file.content_type);
        Ok(match &joined_lists {
            Some(lists) => media_policy::judge(lists, name, declared, &head, HeadExtent::All)?,
            None => media_policy::detect_type(name, declared, &head),
        })
    }

    /// Returns the lists that apply to a concatenated upload: the configured ones, restricted by its upload link. `None`
    /// for any other upload, and if there are no lists.
    async fn joined_lists(&self) -> Result<Option<UploadsConfig>, FinalizeFault> {
        let (file, db) = (self.file(), self.app.db.read());
        // The bytes of a concatenated upload were not hashed on arrival.
        if file.staged_sha256.is_some() || !uploads::is_joined(db, file.id).await? {
            return Ok(None);
        }
        let mut lists = self.app.config.uploads.clone();
        let allowed = upload_links::allowed_types_of(db, file.id).await?;
        media_policy::restrict_types(&mut lists, &allowed);
        Ok(Some(lists).filter(media_policy::needs_bytes))
    }

    async fn store(&self, transferred: VerifiedObject) -> Result<FinalizeOutcome, FinalizeError> {
        let app = self.app;
        let mut file = self.file().clone();
        file.content_type.clone_from(&transferred.content_type);
        let key = self.claimed.key.clone();
        let request = CommitRequest {
            file,
            key,
            transferred,
        };
        let written = self.writes.store(request).await;
        let written = written.map_err(FinalizeError::Store)?;
        failpoint!("finalize.committed");
        activity::count(&app.db, &app.clock, &[(ActivityMetric::FilesStored, 1)]);
        announce(app, &written).await;
        failpoint!("finalize.announced");
        app.dispatch.settled(self.file().id).await;
        self.log_stored();
        self.clear_staging().await;
        Ok(FinalizeOutcome::Stored)
    }

    /// The key contains the name of the file, so it is not logged.
    fn log_stored(&self) {
        if !self.app.config.log.files {
            return;
        }
        let file = self.file();
        let since_upload = self.app.clock.now() - file.created_at;
        tracing::info!(
            file.id = %file.id,
            size_bytes = file.size_bytes,
            owner = file.owner,
            batch_id = file.batch_id.map(tracing::field::display),
            ms = since_upload.num_milliseconds(),
            "stored"
        );
    }

    /// The row no longer lists these bytes; if deleting them fails, the sweep finds them.
    async fn clear_staging(&self) {
        let pieces = files::staged_pieces(self.app.db.read(), self.file()).await;
        let keys: Vec<_> = pieces
            .unwrap_or_default()
            .iter()
            .map(|piece| piece.key)
            .collect();
        if let Err(error) = self.app.staging.delete(&keys).await {
            tracing::warn!(file.id = %self.file().id, error = &error as &dyn Error, "the staged bytes are left to the sweep");
        }
    }

    /// `answered`: whether no request of this run can still be carried out at the key.
    async fn fail(
        &self,
        failure: PermanentFailure,
        answered: bool,
    ) -> Result<FinalizeOutcome, FinalizeError> {
        let app = self.app;
        let now = app.clock.now();
        let retryable_until = app.clock.after(app.config.files.failed_retention);
        tracing::warn!(file.id = %self.file().id, code = failure.code, "the file failed: {}", failure.message);
        let (file, worker, settled) = (
            self.file().clone(),
            self.worker.to_owned(),
            self.settled_key(answered),
        );
        let written = app
            .db
            .write(move |t| {
                Box::pin(async move {
                    commit::settle_key(t, settled, now).await?;
                    commit::fail(t, &file, &worker, &failure, now, retryable_until).await
                })
            })
            .await?;
        failpoint!("finalize.failed");
        activity::count(&app.db, &app.clock, &[(ActivityMetric::FilesFailed, 1)]);
        announce(app, &written).await;
        app.dispatch.settled(self.file().id).await;
        Ok(FinalizeOutcome::Failed)
    }

    async fn after_fault(&self, fault: FinalizeFault) -> Result<FinalizeOutcome, FinalizeError> {
        let permanent = match fault.judge() {
            FaultVerdict::Permanent(code) => Some(code),
            FaultVerdict::MissingBytes(code) => self.bytes_are_missing().await.then_some(code),
            FaultVerdict::Transient => None,
        };
        if let Some(code) = permanent {
            let message = fault.to_string();
            return self.fail(PermanentFailure { code, message }, true).await;
        }
        let (file, app) = (self.file(), self.app);
        let now = app.clock.now();
        if let Some(message) = given_up(&app.config, file, now, &fault) {
            let code = "storage_unavailable";
            let answered = fault.is_answered();
            return self
                .fail(PermanentFailure { code, message }, answered)
                .await;
        }
        let at = app.clock.after(retry_delay(file.finalize_attempts));
        tracing::warn!(
            file.id = %file.id, attempt = file.finalize_attempts + 1, retry_at = %at,
            error = &fault as &dyn Error, "storing the file failed, will retry",
        );
        self.reschedule(None, at, fault.is_answered()).await
    }

    /// Whether staging is available and still lacks some of the bytes. The bytes are checked between two checks of the
    /// marker, since a volume may be unmounted and mounted again at any moment.
    async fn bytes_are_missing(&self) -> bool {
        self.staging_is_visible().await
            && !self.bytes_are_there().await
            && self.staging_is_visible().await
    }

    async fn staging_is_visible(&self) -> bool {
        let visible = installation::marker_visible(self.app, MarkedLocation::Staging).await;
        visible.unwrap_or(false)
    }

    /// Also returns true when it cannot be determined.
    async fn bytes_are_there(&self) -> bool {
        let pieces = files::staged_pieces(self.app.db.read(), self.file()).await;
        for piece in pieces.unwrap_or_default() {
            let found = self.app.staging.len(piece.key).await;
            if found.is_ok_and(|found| found.is_none_or(|length| length < piece.size)) {
                return false;
            }
        }
        true
    }

    /// An object of another origin has the key. The file gets another key, under the same fence, and starts again.
    async fn change_key(&self) -> Result<FinalizeOutcome, FinalizeError> {
        let other = self.claimed.key.deduplicated(&mut rand::rng());
        tracing::warn!(file.id = %self.file().id, "an object unknown to the database has the storage key, using another key");
        self.reschedule(Some(other), self.app.clock.now(), true)
            .await
    }

    async fn reschedule(
        &self,
        key: Option<StorageKey>,
        at: Timestamp,
        answered: bool,
    ) -> Result<FinalizeOutcome, FinalizeError> {
        let now = self.app.clock.now();
        let (file, worker, settled) = (
            self.file().clone(),
            self.worker.to_owned(),
            self.settled_key(answered),
        );
        self.app
            .db
            .write(move |t| {
                Box::pin(async move {
                    commit::settle_key(t, settled, now).await?;
                    commit::reschedule(t, &file, &worker, key, at, now).await
                })
            })
            .await?;
        failpoint!("finalize.rescheduled");
        Ok(FinalizeOutcome::Later(at))
    }

    /// Returns the key if no request can still affect it, where keys have owners (`file_overwrite`).
    fn settled_key(&self, answered: bool) -> Option<(StorageKey, FileId)> {
        (answered && self.app.config.overwrites())
            .then(|| (self.claimed.key.clone(), self.file().id))
    }
}

/// Retries count from the first fault, so a file that waited in a backlog has not lost any of its retry time.
fn given_up(
    config: &Config,
    file: &Model,
    now: Timestamp,
    fault: &FinalizeFault,
) -> Option<String> {
    let retry_for = config.workers.retry_for;
    let since = file.first_fault_at?;
    let waited = (now - since).to_std().unwrap_or_default();
    (waited > retry_for).then(|| {
        format!(
            "the file could not be stored within {}: {fault}",
            humantime::format_duration(retry_for)
        )
    })
}

/// Exponential backoff with full jitter (Brooker, "Exponential Backoff And Jitter", 2015), at least half a second, so
/// that a momentary fault has time to pass.
fn retry_delay(attempts: i32) -> Duration {
    let exponent = u32::try_from(attempts.clamp(0, 20)).unwrap_or(0);
    let span = MIN_RETRY_DELAY
        .saturating_mul(2_u32.saturating_pow(exponent))
        .min(MAX_RETRY_DELAY);
    Duration::from_millis(500) + span.mul_f64(rand::random::<f64>())
}
