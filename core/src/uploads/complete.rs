//! The completion of an upload: all bytes are received and its file is staged, in one transaction, once.

use super::{
    Ranges, UploadError, concat, query,
    write_lease::{open, signed},
};
use crate::{
    activity::{self, ActivityMetric},
    app::App,
    digest::{Sha256Digest, Sha256State},
    files::{OwnerScope, StagedItem, segments, staging_column},
    quota::{self, QuotaChange},
    staging::Piece,
};
use entity::{
    FileId, Timestamp, UploadId,
    file::{self, FileStatus},
    upload::{Column, Entity, Model, UploadKind, UploadStatus},
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, QueryFilter, QuerySelect,
    sea_query::{CaseStatement, Expr, ExprTrait, SimpleExpr},
};
use std::collections::HashMap;

/// A file that was staged by completing an upload, to be passed to [`push`] after the commit.
#[derive(Clone, Copy, Debug)]
pub(super) struct StagedFile {
    file: FileId,
    size: u64,
}

/// Completes an upload whose bytes are all counted. Returns the staged file, which the caller must push after the
/// commit; `None` for a partial upload that is waiting for others.
pub(super) async fn received(
    transaction: &impl ConnectionTrait,
    upload: Model,
    now: Timestamp,
) -> Result<(Model, Option<StagedFile>), UploadError> {
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
    completed(transaction, upload, false, now).await
}

/// The second half of [`received`], where the row of the upload is complete already. `may_grow` means that another
/// writer than the completing one may still write to the last segment.
pub(super) async fn completed(
    transaction: &impl ConnectionTrait,
    upload: Model,
    may_grow: bool,
    now: Timestamp,
) -> Result<(Model, Option<StagedFile>), UploadError> {
    let staged = match upload.kind {
        UploadKind::Partial => concat::partial_received(transaction, &upload, now).await?,
        UploadKind::Parts | UploadKind::Append | UploadKind::Final => {
            let item = match only_segment(&upload) {
                Some(piece) => StagedItem::Piece(Piece { may_grow, ..piece }),
                None => all_segments(&upload),
            };
            let known = upload.hash_state.as_deref();
            let known = known.and_then(|state| Sha256State::from_state(state).ok());
            let sha256 = known.map(|hash| hash.digest());
            let whole = ReceivedFile {
                file: upload.file_id,
                items: vec![item],
                sha256,
            };
            stage_file(transaction, whole, now).await?
        }
    };
    Ok((upload, staged))
}

/// Returns the segment of an upload that has only one.
pub(super) fn only_segment(upload: &Model) -> Option<Piece> {
    let last = match upload.kind {
        UploadKind::Append | UploadKind::Partial => segments::last(upload)?,
        UploadKind::Parts | UploadKind::Final => return None,
    };
    (last.key.start() == 0).then_some(last)
}

/// All segments of an upload, as listed by its rows.
pub(super) fn all_segments(upload: &Model) -> StagedItem {
    StagedItem::Upload {
        id: upload.id,
        size: upload.bytes_received.unsigned_abs(),
    }
}

/// A file whose bytes are all staged.
#[derive(Clone, Debug)]
pub(super) struct ReceivedFile {
    pub(super) file: FileId,
    /// In order, at least one.
    pub(super) items: Vec<StagedItem>,
    /// If it was computed while the bytes were received.
    pub(super) sha256: Option<Sha256Digest>,
}

impl ReceivedFile {
    fn size(&self) -> u64 {
        self.items.iter().map(StagedItem::size).sum()
    }
}

/// The columns of a file whose bytes were being received.
#[derive(FromQueryResult)]
struct UploadingFile {
    id: FileId,
    owner: Option<String>,
    size_bytes: i64,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
}

impl UploadingFile {
    /// The retention of a file counts from when it is staged.
    fn expires_at(&self, now: Timestamp) -> Option<Timestamp> {
        now.checked_add_signed(self.expires_at? - self.created_at)
    }
}

/// Stages all the files, or fails. The results are in order.
///
/// # Errors
/// [`UploadError::Closed`] when one of them is no longer being uploaded, and database errors; the transaction must then
/// be rolled back.
pub(super) async fn stage_files(
    transaction: &impl ConnectionTrait,
    files: &[ReceivedFile],
    now: Timestamp,
) -> Result<Vec<StagedFile>, UploadError> {
    use file::{Column, Entity};
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let ids = || files.iter().map(|whole| whole.file);
    let begun: Vec<UploadingFile> = Entity::find()
        .select_only()
        .columns([
            Column::Id,
            Column::Owner,
            Column::SizeBytes,
            Column::CreatedAt,
            Column::ExpiresAt,
        ])
        .filter(Column::Id.is_in(ids()))
        .into_model()
        .all(transaction)
        .await?;
    let begun: HashMap<FileId, UploadingFile> =
        begun.into_iter().map(|row| (row.id, row)).collect();
    let more = files.iter().filter_map(|whole| {
        let row = begun.get(&whole.file)?;
        Some(QuotaChange {
            owner: row.owner.as_deref(),
            id: whole.file.0,
            bytes: signed(whole.size()) - row.size_bytes,
        })
    });
    quota::change_all(transaction, more).await?;
    let each = |value: &dyn Fn(&ReceivedFile) -> SimpleExpr| -> SimpleExpr {
        let cases = files.iter().fold(CaseStatement::new(), |case, whole| {
            case.case(Column::Id.eq(whole.file), value(whole))
        });
        cases.into()
    };
    let expires_at =
        |whole: &ReceivedFile| begun.get(&whole.file).and_then(|row| row.expires_at(now));
    let changed = Entity::update_many()
        .col_expr(Column::Status, Expr::value(FileStatus::Staged))
        .col_expr(
            Column::SizeBytes,
            each(&|whole| Expr::val(signed(whole.size()))),
        )
        .col_expr(
            Column::StagingKey,
            each(&|whole| Expr::val(staging_column(whole.items.iter().copied()))),
        )
        .col_expr(
            Column::StagedSha256,
            each(&|whole| Expr::val(whole.sha256.map(|digest| digest.to_string()))),
        )
        .col_expr(Column::StagedAt, Expr::value(now))
        .col_expr(
            Column::ExpiresAt,
            each(&|whole| Expr::val(expires_at(whole))),
        )
        .col_expr(Column::UpdatedAt, Expr::value(now))
        .filter(Column::Id.is_in(ids()))
        .filter(Column::Status.eq(FileStatus::Uploading))
        .exec(transaction)
        .await?;
    if changed.rows_affected < files.len() as u64 {
        return Err(UploadError::Closed(UploadStatus::Failed));
    }
    let staged = files.iter().map(|whole| StagedFile {
        file: whole.file,
        size: whole.size(),
    });
    Ok(staged.collect())
}

/// [`stage_files`] for one file.
pub(super) async fn stage_file(
    transaction: &impl ConnectionTrait,
    whole: ReceivedFile,
    now: Timestamp,
) -> Result<Option<StagedFile>, UploadError> {
    let staged = stage_files(transaction, &[whole], now).await?;
    Ok(staged.into_iter().next())
}

/// Pushes the finalize job of a file whose staging is committed.
pub(super) async fn push(app: &App, staged: StagedFile) {
    let received = [
        (ActivityMetric::FilesReceived, 1),
        (ActivityMetric::BytesReceived, staged.size),
    ];
    activity::count(&app.db, &app.clock, &received);
    app.dispatch.finalize(&[staged.file]).await;
}

/// Completes an upload session whose parts are all received, and pushes its file's finalize job. Repeated or concurrent
/// calls return the same file.
///
/// # Errors
/// [`UploadError::PartsMissing`] with their numbers, [`UploadError::Closed`], [`UploadError::NotFound`].
pub async fn complete(
    app: &App,
    scope: &OwnerScope,
    id: UploadId,
) -> Result<file::Model, UploadError> {
    let upload = query::get(app.db.read(), scope, id).await?;
    if upload.kind != UploadKind::Parts {
        return Err(UploadError::NotFound);
    }
    let now = app.clock.now();
    let staged = app
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
        Some(staged) => push(app, staged).await,
        None => require_complete(app, id).await?,
    }
    let file = file::Entity::find_by_id(upload.file_id)
        .one(app.db.read())
        .await?;
    file.ok_or(UploadError::NotFound)
}

/// Returns why an upload could not be completed just now, unless it is complete.
async fn require_complete(app: &App, id: UploadId) -> Result<(), UploadError> {
    let found = Entity::find_by_id(id).one(app.db.read()).await?;
    let upload = found.ok_or(UploadError::NotFound)?;
    match upload.status {
        UploadStatus::Complete => Ok(()),
        UploadStatus::Init | UploadStatus::InProgress => {
            let received = Ranges::received(app.db.read(), id).await?;
            let last = upload.total_parts.unwrap_or(0).unsigned_abs();
            Err(UploadError::PartsMissing(received.missing(last)))
        }
        closed => Err(UploadError::Closed(closed)),
    }
}
