//! Stages the body of an upload, and deletes it again if the upload is rejected.

use super::upload_fields::UploadFields;
use crate::api::{
    problem::{Code, Problem},
    state::ApiState,
};
use bytes::Bytes;
use entity::{FileId, file};
use futures::Stream;
use landfall_core::{
    digest::Sha256Digest,
    files::{self, AcceptError, FileName, NewFile},
    idempotency::PendingResponse,
    quota::{QuotaError, Reservation, SharedReservation, within_quota},
    staging::{ChecksumAlgorithm, Held, Piece, Staging, StagingKey, WriteOptions},
    tokens::Identity,
    upload_links::LinkUse,
};
use std::{error::Error, sync::Arc, time::Instant};

/// Staged bytes without a row; deleted on drop.
///
/// After a crash the sweep deletes them.
#[derive(Debug)]
pub(super) struct StagedBody {
    staging: Staging,
    key: StagingKey,
    kept: bool,
    /// In bytes.
    pub(super) size: u64,
    /// The reservation of space in the owner's quota, until the bytes are counted.
    reservation: Option<SharedReservation>,
    /// Computed while the bytes arrived.
    pub(super) sha256: Sha256Digest,
}

impl Drop for StagedBody {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let (staging, key) = (self.staging.clone(), self.key);
        // The reserved space is released after they are deleted.
        let reservation = self.reservation.take();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = staging.delete(&[key]).await {
                    tracing::debug!(%error, "rejected bytes were not deleted, the sweep will delete them");
                    if let Some(reservation) = &reservation {
                        reservation.leave_to_expire().await;
                    }
                }
                drop(reservation);
            });
        }
    }
}

/// Stages a non-empty body of at most `uploads.max_file_size`, and hashes it on the way.
pub(super) async fn stage<E>(
    state: &ApiState,
    caller: &Identity,
    body: impl Stream<Item = Result<Bytes, E>> + Send,
    expected: Option<u64>,
) -> Result<StagedBody, Problem>
where
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let app = &state.app;
    // The id of the future file, by which the sweep tells these bytes from leftovers.
    let key = StagingKey::generate();
    let started = Instant::now();
    let reservation = reserve(state, caller, expected).await?;
    let held = reservation.clone().map(|room| Arc::new(room) as Held);
    let options = WriteOptions {
        limit: app.config.uploads.max_file_size.0,
        expected,
        hashes: &[ChecksumAlgorithm::Sha256],
        running: None,
        holds: held.as_ref(),
    };
    let body = within_quota(body, reservation.clone());
    let staged = app.staging.write(key, body, options).await;
    state
        .metrics
        .record_staged(staged.is_ok(), started.elapsed());
    let staged = staged?;
    let sha256 = staged.hashes.sha256;
    let sha256 = sha256.ok_or_else(|| Problem::failed("no digest was made"))?;
    let bytes = StagedBody {
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
    state.metrics.record_received(staged.size);
    Ok(bytes)
}

/// Reserves space in the caller's quota: all of it if the body declares its length, otherwise as the bytes arrive.
async fn reserve(
    state: &ApiState,
    caller: &Identity,
    announced: Option<u64>,
) -> Result<Option<SharedReservation>, Problem> {
    let Some(mut reservation) = Reservation::new(&state.app, caller.owner.as_deref()) else {
        return Ok(None);
    };
    if let Some(length) = announced {
        reservation.cover_all(length).await?;
    }
    Ok(Some(reservation.into()))
}

impl StagedBody {
    pub(super) fn key(&self) -> StagingKey {
        self.key
    }

    /// Rejects bytes that do not match their declared digest.
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

/// A staged file and all its fields.
#[derive(Debug)]
pub(super) struct StagedFile {
    pub(super) id: FileId,
    pub(super) owner: Option<String>,
    pub(super) name: FileName,
    pub(super) content_type: String,
    pub(super) fields: UploadFields,
    pub(super) bytes: StagedBody,
    pub(super) traceparent: Option<String>,
    pub(super) link: Option<LinkUse>,
}

/// Commits the file's row. Must not be dropped halfway, because then it is unknown whether the bytes have a row.
pub(super) async fn commit(
    state: &ApiState,
    complete: StagedFile,
    keep: Option<PendingResponse<file::Model>>,
) -> Result<file::Model, Problem> {
    let app = &state.app;
    let StagedFile {
        id,
        owner,
        name,
        content_type,
        fields,
        mut bytes,
        traceparent,
        link,
    } = complete;
    let reservation = bytes.reservation.as_ref().map(SharedReservation::id);
    let new = NewFile {
        id,
        owner,
        original_filename: name,
        content_type,
        declared_sha256: fields.sha256,
        staged_sha256: bytes.sha256,
        expires_in: fields.ttl(&app.config),
        metadata: fields
            .metadata
            .unwrap_or_else(|| serde_json::Value::Object(serde_json::Map::new())),
        batch_id: fields.batch_id,
        staged: vec![Piece::new(bytes.key, bytes.size)],
        traceparent,
        reservation,
        link,
    };
    match files::accept(app, new, keep).await {
        Ok(row) => {
            bytes.kept = true;
            app.dispatch.finalize(&[id]).await;
            Ok(row)
        }
        Err(
            error @ (AcceptError::Batch(_)
            | AcceptError::Link(_)
            | AcceptError::Key(_)
            | AcceptError::Quota(QuotaError::Exceeded { .. })),
        ) => Err(error.into()),
        Err(AcceptError::Database(error) | AcceptError::Quota(QuotaError::Database(error))) => {
            // The commit may have succeeded anyway; if not, the sweep deletes the bytes.
            bytes.kept = true;
            if let Some(reservation) = &bytes.reservation {
                reservation.leave_to_expire().await;
            }
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
