//! Bytes into staging, and out of it again when the upload is refused.

use super::upload_fields::Said;
use crate::api::{
    problem::{Code, Problem},
    state::State,
};
use bytes::Bytes;
use entity::{FileId, file};
use futures::Stream;
use landfall_core::{
    digest::Sha256Digest,
    files::{self, AcceptError, FileName, NewFile},
    idempotency::PendingResponse,
    quota::{QuotaError, Reservation, SharedReservation, within_quota},
    staging::{ChecksumAlgorithm, Staging, StagingKey, WriteOptions},
    tokens::Identity,
    transfer::Piece,
};
use std::{error::Error, sync::Arc, time::Instant};
use tokio::sync::Mutex;

/// Staged bytes that no row speaks of yet: deleted when dropped.
///
/// A crash leaves them to the sweep.
#[derive(Debug)]
pub(super) struct StagedBytes {
    staging: Staging,
    key: StagingKey,
    kept: bool,
    /// In bytes.
    pub(super) size: u64,
    /// Where room for them is reserved in their owner's quota, until they are counted.
    reservation: Option<SharedReservation>,
    /// Made while the bytes came in.
    pub(super) sha256: Sha256Digest,
}

impl Drop for StagedBytes {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let (staging, key) = (self.staging.clone(), self.key);
        // Their room is free once they are gone.
        let reservation = self.reservation.take();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = staging.delete(&[key]).await {
                    tracing::debug!(%error, "refused bytes are left to the sweep");
                }
                drop(reservation);
            });
        }
    }
}

/// Stages a body of at most `uploads.max_file_size`, which is not to be empty, and hashes it on its way.
pub(super) async fn stage<E>(
    state: &State,
    caller: &Identity,
    body: impl Stream<Item = Result<Bytes, E>> + Send,
    expected: Option<u64>,
) -> Result<StagedBytes, Problem>
where
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let app = &state.app;
    // The id of the file the bytes become, by which the sweep tells them from litter.
    let key = StagingKey::generate();
    let options = WriteOptions {
        limit: app.config.uploads.max_file_size.0,
        expected,
        hashes: &[ChecksumAlgorithm::Sha256],
        running: None,
    };
    let begun = Instant::now();
    let reservation = reserve(state, caller, expected).await?;
    let body = within_quota(body, reservation.clone());
    let staged = app.staging.write(key, body, options).await;
    state.metrics.staged(staged.is_ok(), begun.elapsed());
    let staged = staged?;
    let sha256 = staged.hashes.sha256;
    let sha256 = sha256.ok_or_else(|| Problem::failed("no digest was made"))?;
    let bytes = StagedBytes {
        staging: app.staging.clone(),
        key,
        kept: false,
        reservation,
        size: staged.size,
        sha256,
    };
    if staged.size == 0 {
        return Err(Problem::new(
            Code::EmptyFile,
            "The file is empty. Send at least one byte.",
        ));
    }
    state.metrics.received(staged.size);
    Ok(bytes)
}

/// Room in the caller's quota: for all of a body that says how long it is, else for what comes as it comes.
async fn reserve(
    state: &State,
    caller: &Identity,
    announced: Option<u64>,
) -> Result<Option<SharedReservation>, Problem> {
    let Some(mut reservation) = Reservation::new(&state.app, caller.owner.as_deref()) else {
        return Ok(None);
    };
    if let Some(length) = announced {
        reservation.cover_all(length).await?;
    }
    Ok(Some(Arc::new(Mutex::new(reservation))))
}

impl StagedBytes {
    pub(super) fn key(&self) -> StagingKey {
        self.key
    }

    /// Refuses bytes that do not have the digest they were said to have.
    pub(super) fn verify(&self, declared: Option<Sha256Digest>) -> Result<(), Problem> {
        let found = self.sha256;
        let Some(declared) = declared.filter(|declared| *declared != found) else {
            return Ok(());
        };
        Err(Problem::new(
            Code::DigestMismatch,
            format!("The declared SHA-256 is {declared}, but the received bytes have {found}."),
        ))
    }
}

/// A file that is staged and known by all that is said of it.
#[derive(Debug)]
pub(super) struct Complete {
    pub(super) id: FileId,
    pub(super) owner: Option<String>,
    pub(super) name: FileName,
    pub(super) content_type: String,
    pub(super) said: Said,
    pub(super) bytes: StagedBytes,
    pub(super) traceparent: Option<String>,
}

/// Commits the file's row. Not to be dropped half-way: then nobody knows whether the bytes are spoken of.
pub(super) async fn commit(
    state: &State,
    complete: Complete,
    keep: Option<PendingResponse<file::Model>>,
) -> Result<file::Model, Problem> {
    let app = &state.app;
    let Complete {
        id,
        owner,
        name,
        content_type,
        said,
        mut bytes,
        traceparent,
    } = complete;
    let reservation = match &bytes.reservation {
        Some(reservation) => Some(reservation.lock().await.id()),
        None => None,
    };
    let new = NewFile {
        id,
        owner,
        original_filename: name,
        content_type,
        declared_sha256: said.sha256,
        staged_sha256: bytes.sha256,
        expires_in: said.life(&app.config),
        metadata: said
            .metadata
            .unwrap_or_else(|| serde_json::Value::Object(serde_json::Map::new())),
        batch_id: said.batch_id,
        staged: vec![Piece::new(bytes.key, bytes.size)],
        traceparent,
        reservation,
    };
    match files::accept(app, new, keep).await {
        Ok(row) => {
            bytes.kept = true;
            app.dispatch.finalize(&[id]).await;
            Ok(row)
        }
        Err(
            error @ (AcceptError::Batch(_)
            | AcceptError::Key(_)
            | AcceptError::Quota(QuotaError::Exceeded { .. })),
        ) => Err(error.into()),
        Err(AcceptError::Database(error) | AcceptError::Quota(QuotaError::Database(error))) => {
            // The commit may have succeeded all the same; if it has not, the sweep removes the bytes.
            bytes.kept = true;
            match files::get(app.db.read(), &files::OwnerScope::All, id).await {
                Ok(Some(row)) => {
                    app.dispatch.finalize(&[id]).await;
                    Ok(row)
                }
                _ => Err(error.into()),
            }
        }
    }
}
