//! The end of an upload: all bytes are there, its file is staged. One transaction, once.

use super::{
    Ranges, UploadError, concat,
    hold::{open, signed},
    query,
};
use crate::{
    context::Landfall,
    digest::{RunningHash, Sha256Digest},
    files::{Scope, staging_column},
    minutes::{self, Counted},
    staging::StagingKey,
    storage::transfer::Piece,
    usage,
};
use entity::{
    FileId, Timestamp, UploadId,
    file::{self, FileStatus},
    upload::{Column, Entity, Model, UploadKind, UploadStatus},
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, QueryFilter,
    sea_query::{Expr, ExprTrait},
};

/// A file that an upload's end has staged, to be handed to [`push`] after the commit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Staged {
    file: FileId,
    size: u64,
}

/// Completes an upload all of whose bytes are counted. Answers the file that is staged by it, for the caller to push
/// after the commit; none for a partial upload that still waits for others.
pub(super) async fn received(
    transaction: &impl ConnectionTrait,
    upload: Model,
    now: Timestamp,
) -> Result<(Model, Option<Staged>), UploadError> {
    let rows = open(upload.id)
        .col_expr(Column::Status, Expr::value(UploadStatus::Complete))
        .col_expr(
            Column::LeaseExpiresAt,
            Expr::value(Option::<Timestamp>::None),
        )
        .col_expr(Column::UpdatedAt, Expr::value(now))
        .exec_with_returning(transaction)
        .await?;
    let upload = rows.into_iter().next().ok_or(UploadError::Preempted)?;
    completed(transaction, upload, now).await
}

/// The rest of [`received`], where the row of the upload says already that it is complete.
pub(super) async fn completed(
    transaction: &impl ConnectionTrait,
    upload: Model,
    now: Timestamp,
) -> Result<(Model, Option<Staged>), UploadError> {
    let staged = match upload.kind {
        UploadKind::Partial => concat::partial_received(transaction, &upload, now).await?,
        UploadKind::Parts | UploadKind::Append | UploadKind::Final => {
            let piece = Piece {
                key: StagingKey(upload.id.0),
                size: upload.bytes_received.unsigned_abs(),
            };
            let known = upload.hash_state.as_deref();
            let known = known.and_then(|state| RunningHash::from_state(state).ok());
            let sha256 = known.map(|hash| hash.digest());
            Some(stage_file(transaction, upload.file_id, &[piece], sha256, now).await?)
        }
    };
    Ok((upload, staged))
}

/// The file's bytes are all in these pieces, and have this digest if it is known from when they came.
/// How long it is kept counts from now.
pub(super) async fn stage_file(
    transaction: &impl ConnectionTrait,
    id: FileId,
    pieces: &[Piece],
    sha256: Option<Sha256Digest>,
    now: Timestamp,
) -> Result<Staged, UploadError> {
    use file::Column;
    let size: u64 = pieces.iter().map(|piece| piece.size).sum();
    let found = file::Entity::find_by_id(id).one(transaction).await?;
    if let Some(file) = &found {
        let more = signed(size) - file.size_bytes;
        usage::change(transaction, file.owner.as_deref(), id.0, more).await?;
    }
    let expires_at = found.and_then(|file| {
        let kept_for = file.expires_at? - file.created_at;
        now.checked_add_signed(kept_for)
    });
    let changed = file::Entity::update_many()
        .col_expr(Column::Status, Expr::value(FileStatus::Staged))
        .col_expr(Column::SizeBytes, Expr::value(signed(size)))
        .col_expr(Column::StagingKey, Expr::value(staging_column(pieces)))
        .col_expr(
            Column::StagedSha256,
            Expr::value(sha256.map(|digest| digest.to_string())),
        )
        .col_expr(Column::StagedAt, Expr::value(now))
        .col_expr(Column::ExpiresAt, Expr::value(expires_at))
        .col_expr(Column::UpdatedAt, Expr::value(now))
        .filter(Column::Id.eq(id))
        .filter(Column::Status.eq(FileStatus::Uploading))
        .exec(transaction)
        .await?;
    match changed.rows_affected {
        0 => Err(UploadError::Closed(UploadStatus::Failed)),
        _ => Ok(Staged { file: id, size }),
    }
}

/// Has a file that is staged and committed finalized.
pub(super) async fn push(landfall: &Landfall, staged: Staged) {
    let received = [
        (Counted::FilesReceived, 1),
        (Counted::BytesReceived, staged.size),
    ];
    minutes::count(&landfall.db, &landfall.clock, &received);
    landfall.dispatch.finalize(&[staged.file]).await;
}

/// Ends an upload session all of whose parts are there, and pushes its file's finalize job; again, or several times
/// at once, it answers the same file.
///
/// # Errors
/// [`UploadError::PartsMissing`] with their numbers, [`UploadError::Closed`], [`UploadError::NotFound`].
pub async fn complete(
    landfall: &Landfall,
    scope: &Scope,
    id: UploadId,
) -> Result<file::Model, UploadError> {
    let upload = query::get(landfall.db.read(), scope, id).await?;
    if upload.kind != UploadKind::Parts {
        return Err(UploadError::NotFound);
    }
    let now = landfall.clock.now();
    let staged = landfall
        .db
        .write(move |transaction| {
            Box::pin(async move {
                let whole = Expr::col(Column::CompletedParts).equals(Column::TotalParts);
                let rows = open(id)
                    .col_expr(Column::UpdatedAt, Expr::value(now))
                    .filter(whole)
                    .exec_with_returning(transaction)
                    .await?;
                match rows.into_iter().next() {
                    Some(upload) => Ok(received(transaction, upload, now).await?.1),
                    None => Ok::<_, UploadError>(None),
                }
            })
        })
        .await?;
    match staged {
        Some(staged) => push(landfall, staged).await,
        None => require_complete(landfall, id).await?,
    }
    let file = file::Entity::find_by_id(upload.file_id)
        .one(landfall.db.read())
        .await?;
    file.ok_or(UploadError::NotFound)
}

/// Why an upload could not be completed just now, unless it is.
async fn require_complete(landfall: &Landfall, id: UploadId) -> Result<(), UploadError> {
    let found = Entity::find_by_id(id).one(landfall.db.read()).await?;
    let upload = found.ok_or(UploadError::NotFound)?;
    match upload.status {
        UploadStatus::Complete => Ok(()),
        UploadStatus::Init | UploadStatus::InProgress => {
            let received = Ranges::received(landfall.db.read(), id).await?;
            let last = upload.total_parts.unwrap_or(0).unsigned_abs();
            Err(UploadError::PartsMissing(received.missing(last)))
        }
        closed => Err(UploadError::Closed(closed)),
    }
}
