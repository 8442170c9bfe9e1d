//! Finding uploads, and reading what they have so far.

use super::UploadError;
use crate::{
    context::Landfall,
    db::only,
    files::{self, Scope},
    staging::{StagingError, StagingKey, StagingStream},
    storage::transfer::Piece,
};
use entity::{
    FileId, Timestamp, UploadId, file,
    upload::{Entity, Model, UploadKind, UploadStatus},
};
use futures::{StreamExt, TryStreamExt, stream};
use sea_orm::{ConnectionTrait, DbErr, EntityTrait};
use std::time::Duration;
use tokio::time::Instant;

/// Enough for a writer on a disk to notice that its client pauses or is gone, and to count what came.
const SETTLED_ON_DISK: Duration = Duration::from_millis(400);
/// The same in a bucket, where what came last is an object to be put first.
const SETTLED_IN_BUCKET: Duration = Duration::from_millis(2500);
/// How long it may take besides until a writer counts what trickles in.
const COUNTED: Duration = Duration::from_millis(2500);

/// How often an offset is looked at again that is about to move.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// One upload, if the scope covers it.
///
/// # Errors
/// The database's.
pub async fn find(
    db: &impl ConnectionTrait,
    scope: &Scope,
    id: UploadId,
) -> Result<Option<Model>, DbErr> {
    let found = only(Entity::find_by_id(id), db).await?;
    Ok(found.filter(|upload| scope.covers(upload.owner.as_deref())))
}

/// One upload, if the scope covers it.
///
/// # Errors
/// [`UploadError::NotFound`], and the database's.
pub async fn get(
    db: &impl ConnectionTrait,
    scope: &Scope,
    id: UploadId,
) -> Result<Model, UploadError> {
    find(db, scope, id).await?.ok_or(UploadError::NotFound)
}

/// One upload, for a client that wants to go on with it: if a writer is at work whose client may just have gone
/// away, the offset is told once that writer has counted what came: in a moment if its client is gone (0.4 seconds with
/// staging on a disk, 2.5 in a bucket), else when it counts next.
///
/// # Errors
/// As [`get`].
pub async fn settled_offset(
    landfall: &Landfall,
    scope: &Scope,
    id: UploadId,
) -> Result<Model, UploadError> {
    let moment = match landfall.staging.local_path(StagingKey::unsegmented(id.0)) {
        Some(_) => SETTLED_ON_DISK,
        None => SETTLED_IN_BUCKET,
    };
    let begun = Instant::now();
    let mut first = None;
    loop {
        let upload = get(landfall.db.read(), scope, id).await?;
        let at_work = is_open(upload.status)
            && upload
                .lease_expires_at
                .is_some_and(|lease| lease > landfall.clock.now());
        let seen = *first.get_or_insert(upload.bytes_received);
        let waited = begun.elapsed();
        let moved = upload.bytes_received > seen && waited >= moment;
        if !at_work || moved || waited >= moment + COUNTED {
            return Ok(upload);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// How far an upload is at a moment: one whose time is over counts as expired before the sweep has come to it. A final
/// upload's time is that of its partial ones.
#[must_use]
pub fn status_at(upload: &Model, now: Timestamp) -> UploadStatus {
    if is_open(upload.status) && upload.kind != UploadKind::Final && upload.expires_at < now {
        UploadStatus::Expired
    } else {
        upload.status
    }
}

/// True while bytes are taken in.
pub(super) fn is_open(status: UploadStatus) -> bool {
    matches!(status, UploadStatus::Init | UploadStatus::InProgress)
}

/// True of a file that was joined of partial uploads.
///
/// # Errors
/// The database's.
pub(crate) async fn is_joined(db: &impl ConnectionTrait, id: FileId) -> Result<bool, DbErr> {
    let upload = Entity::find_by_id(UploadId(id.0)).one(db).await?;
    Ok(upload.is_some_and(|upload| upload.kind == UploadKind::Final))
}

/// The bytes of a complete upload that is not in storage yet, and how many they are; none once they are there, or gone.
///
/// # Errors
/// The database's, and what staging answers.
pub async fn staged(
    landfall: &Landfall,
    upload: &Model,
) -> Result<Option<(u64, StagingStream)>, UploadError> {
    if upload.status != UploadStatus::Complete {
        return Ok(None);
    }
    let pieces = match upload.kind {
        UploadKind::Partial => vec![Piece {
            key: StagingKey::unsegmented(upload.id.0),
            size: upload.bytes_received.unsigned_abs(),
        }],
        _ => pieces_of(landfall, upload.file_id).await?,
    };
    if pieces.is_empty() {
        return Ok(None);
    }
    let size = pieces.iter().map(|piece| piece.size).sum();
    let staging = landfall.staging.clone();
    let mut streams = Vec::with_capacity(1);
    // Only the first is opened now: whether the bytes are there is answered before they are promised.
    let mut pieces = pieces.into_iter().filter(|piece| piece.size > 0);
    if let Some(first) = pieces.next() {
        match staging.read(first.key, 0..first.size).await {
            Ok(stream) => streams.push(stream),
            Err(StagingError::Gone) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    let following = stream::iter(pieces)
        .then(move |piece| {
            let staging = staging.clone();
            async move { staging.read(piece.key, 0..piece.size).await }
        })
        .try_flatten();
    let bytes = stream::iter(streams).flatten().chain(following).boxed();
    Ok(Some((size, bytes)))
}

async fn pieces_of(landfall: &Landfall, id: FileId) -> Result<Vec<Piece>, UploadError> {
    let file = file::Entity::find_by_id(id).one(landfall.db.read()).await?;
    match file {
        Some(file) => Ok(files::staged_pieces(landfall.db.read(), &file).await?),
        None => Ok(Vec::new()),
    }
}
