//! Finding uploads, and reading their received bytes.

use super::UploadError;
use crate::{
    app::App,
    db::one_row,
    files::{self, OwnerScope, segments},
    staging::{Piece, StagingError, StagingStream},
};
use entity::{
    FileId, Timestamp, UploadId, file,
    upload::{Entity, Model, UploadKind, UploadStatus},
};
use sea_orm::{ConnectionTrait, DbErr, EntityTrait};
use std::time::Duration;
use tokio::time::Instant;

/// Enough for a writer on a disk to notice that its client pauses or is gone, and to count the received bytes.
const SETTLED_ON_DISK: Duration = Duration::from_millis(400);
/// The same for a bucket, where the last bytes must be put as an object first.
const SETTLED_IN_BUCKET: Duration = Duration::from_millis(2500);

/// How much longer it may take until a writer counts bytes that arrive slowly, or that it was asked to count.
const COUNTED: Duration = Duration::from_millis(2500);

/// How often an offset that is about to change is read again.
const POLL_INTERVAL: Duration = Duration::from_millis(25);

/// Returns an upload, if the scope covers it.
///
/// # Errors
/// Database errors.
pub async fn find(
    db: &impl ConnectionTrait,
    scope: &OwnerScope,
    id: UploadId,
) -> Result<Option<Model>, DbErr> {
    let found = one_row(Entity::find_by_id(id), db).await?;
    Ok(found.filter(|upload| scope.covers(upload.owner.as_deref())))
}

/// Returns an upload, if the scope covers it.
///
/// # Errors
/// [`UploadError::NotFound`], and database errors.
pub async fn get(
    db: &impl ConnectionTrait,
    scope: &OwnerScope,
    id: UploadId,
) -> Result<Model, UploadError> {
    find(db, scope, id).await?.ok_or(UploadError::NotFound)
}

/// Returns an upload for a client that wants to resume it. An active writer in this process first counts its received
/// bytes. A writer in another process is waited for: briefly if its client may be gone (0.4 seconds with staging on a
/// disk, 2.5 in a bucket), otherwise until it counts next.
///
/// # Errors
/// As [`get`].
pub async fn settled_offset(
    app: &App,
    scope: &OwnerScope,
    id: UploadId,
) -> Result<Model, UploadError> {
    let moment = match app.staging.is_in_a_bucket() {
        true => SETTLED_IN_BUCKET,
        false => SETTLED_ON_DISK,
    };
    let writers = app.uploads.writers();
    if writers.count_now(id, moment, moment + COUNTED).await {
        return get(app.db.read(), scope, id).await;
    }
    let begun = Instant::now();
    let mut first = None;
    loop {
        let upload = get(app.db.read(), scope, id).await?;
        let at_work = accepts_bytes(upload.status)
            && upload
                .lease_expires_at
                .is_some_and(|lease| lease > app.clock.now());
        let seen = *first.get_or_insert(upload.bytes_received);
        let waited = begun.elapsed();
        let moved = upload.bytes_received > seen && waited >= moment;
        if !at_work || moved || waited >= moment + COUNTED {
            return Ok(upload);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The status of an upload at a given time: an upload past its expiry counts as expired even before the sweep has
/// processed it. A final upload expires with its partial uploads.
#[must_use]
pub fn status_at(upload: &Model, now: Timestamp) -> UploadStatus {
    if accepts_bytes(upload.status) && upload.kind != UploadKind::Final && upload.expires_at < now {
        UploadStatus::Expired
    } else {
        upload.status
    }
}

/// Whether uploads in this status accept bytes.
pub(super) fn accepts_bytes(status: UploadStatus) -> bool {
    matches!(status, UploadStatus::Init | UploadStatus::InProgress)
}

/// Whether a file was concatenated from partial uploads.
///
/// # Errors
/// Database errors.
pub(crate) async fn is_joined(db: &impl ConnectionTrait, id: FileId) -> Result<bool, DbErr> {
    let upload = Entity::find_by_id(UploadId(id.0)).one(db).await?;
    Ok(upload.is_some_and(|upload| upload.kind == UploadKind::Final))
}

/// Returns the counted bytes of an upload, in order: exactly its keys in staging.
///
/// # Errors
/// Database errors.
pub async fn pieces(db: &impl ConnectionTrait, id: UploadId) -> Result<Vec<Piece>, DbErr> {
    let mut listed = segments::of_uploads(db, &[id]).await?;
    Ok(listed.remove(&id).unwrap_or_default())
}

/// Returns the bytes of a complete upload that is not in storage yet, and their number; `None` once they are stored, or
/// gone.
///
/// # Errors
/// Database errors, and errors of staging.
pub async fn staged(
    app: &App,
    upload: &Model,
) -> Result<Option<(u64, StagingStream)>, UploadError> {
    if upload.status != UploadStatus::Complete {
        return Ok(None);
    }
    let pieces = match upload.kind {
        UploadKind::Partial => pieces(app.db.read(), upload.id).await?,
        _ => pieces_of(app, upload.file_id).await?,
    };
    if pieces.is_empty() {
        return Ok(None);
    }
    let size = pieces.iter().map(|piece| piece.size).sum();
    // Whether the bytes exist is checked before they are promised.
    match app.staging.read_pieces(&pieces).await {
        Ok(bytes) => Ok(Some((size, bytes))),
        Err(StagingError::Gone) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn pieces_of(app: &App, id: FileId) -> Result<Vec<Piece>, UploadError> {
    let file = file::Entity::find_by_id(id).one(app.db.read()).await?;
    match file {
        Some(file) => Ok(files::staged_pieces(app.db.read(), &file).await?),
        None => Ok(Vec::new()),
    }
}
