//! Cancels an upload, on request of its client or on expiry. Nothing is announced except the completion of a batch.
//!
//! The rows change first; after a crash before the bytes are deleted, the sweep deletes them.

use super::{UploadError, query};
use crate::{
    app::App,
    batches::{self, FileOutcome},
    files::{self, DeleteError, OwnerScope, segments},
    outbox::{WriteError, WrittenEvent},
    quota,
    staging::StagingKey,
    upload_links,
};
use entity::{
    BatchId, FileId, Timestamp, UploadId,
    file::{self, FileStatus},
    upload::{Column, Entity, Model, UploadKind, UploadStatus},
};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QuerySelect,
    sea_query::Expr,
};
use std::time::Duration;
use tokio::time::Instant;

/// How long to wait for a worker that is processing the file.
const FINALIZE_WAIT: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Why an upload is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CancelReason {
    Aborted,
    Expired,
}

impl CancelReason {
    fn status(self) -> UploadStatus {
        match self {
            Self::Aborted => UploadStatus::Aborted,
            Self::Expired => UploadStatus::Expired,
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::Aborted => "upload_aborted",
            Self::Expired => "upload_expired",
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::Aborted => "the upload was aborted by its client",
            Self::Expired => "nothing came for longer than uploads.session_ttl",
        }
    }
}

/// The effect of closing an upload.
#[derive(Debug, Default)]
struct ClosedUpload {
    any: bool,
    /// The upload and the uploads closed with it; their bytes are to be deleted.
    uploads: Vec<UploadId>,
    file: Option<FileId>,
    written: Option<WrittenEvent>,
}

/// Aborts an upload: a session, a tus upload, or a partial upload that is not part of a final one.
///
/// For a complete upload the file is withdrawn: a staged file fails, a stored one is deleted as by [`files::delete`].
/// Aborting an aborted upload succeeds.
///
/// # Errors
/// [`UploadError::NotFound`]; [`UploadError::Locked`] when a worker is processing the file for more than ten seconds.
pub async fn abort(app: &App, scope: &OwnerScope, id: UploadId) -> Result<(), UploadError> {
    let until = Instant::now() + FINALIZE_WAIT;
    loop {
        let upload = query::get(app.db.read(), scope, id).await?;
        if upload.status != UploadStatus::Complete || upload.kind == UploadKind::Partial {
            return cancel(app, id, CancelReason::Aborted).await.map(drop);
        }
        if withdraw(app, &upload).await? {
            return Ok(());
        }
        if Instant::now() >= until {
            return Err(UploadError::Locked);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Closes an upload that accepts bytes, or a complete partial upload that is waiting. Returns false when it is already
/// closed.
pub(super) async fn cancel(
    app: &App,
    id: UploadId,
    reason: CancelReason,
) -> Result<bool, UploadError> {
    let now = app.clock.now();
    let closed = app
        .db
        .write(move |transaction| {
            Box::pin(async move { close_rows(transaction, id, reason, now).await })
        })
        .await?;
    let any = closed.any;
    // Otherwise its first append would be staged before it is rejected.
    app.uploads.take_recent(id);
    clear(app, closed).await;
    Ok(any)
}

async fn close_rows(
    transaction: &impl ConnectionTrait,
    id: UploadId,
    reason: CancelReason,
    now: Timestamp,
) -> Result<ClosedUpload, UploadError> {
    let Some(upload) = end_uploads(transaction, Column::Id.eq(id), reason, now)
        .await?
        .pop()
    else {
        return Ok(ClosedUpload::default());
    };
    if upload.kind == UploadKind::Partial && upload.file_id.0 == upload.id.0 {
        let counted = quota::partial_usage(&upload);
        quota::change(transaction, upload.owner.as_deref(), id.0, -counted).await?;
    }
    let mut uploads = vec![upload.id];
    let mut whole_upload = None;
    if upload.file_id.0 != upload.id.0 {
        // It belongs to a final upload, which is useless without it.
        let whole = Column::Id.eq(UploadId(upload.file_id.0));
        let ended = end_uploads(transaction, whole, reason, now).await?;
        whole_upload = ended.first().map(|upload| upload.id);
        if ended.is_empty() {
            // The final upload is complete, so the bytes belong to its file.
            return Ok(ClosedUpload {
                any: true,
                ..ClosedUpload::default()
            });
        }
    }
    if upload.kind == UploadKind::Final || upload.file_id.0 != upload.id.0 {
        let others = Column::FileId.eq(upload.file_id);
        let more = end_uploads(transaction, others, reason, now).await?;
        uploads.extend(more.into_iter().map(|upload| upload.id));
    }
    let (file, written) = fail_file(
        transaction,
        upload.file_id,
        FileStatus::Uploading,
        reason,
        now,
    )
    .await?;
    // After the batch and the file: the order in which locks are taken.
    let ended: Vec<UploadId> = uploads.iter().copied().chain(whole_upload).collect();
    upload_links::release(transaction, &ended).await?;
    Ok(ClosedUpload {
        any: true,
        uploads,
        file,
        written,
    })
}

async fn end_uploads(
    transaction: &impl ConnectionTrait,
    which: impl sea_orm::sea_query::IntoCondition,
    reason: CancelReason,
    now: Timestamp,
) -> Result<Vec<Model>, DbErr> {
    let open = Column::Status.is_in([UploadStatus::Init, UploadStatus::InProgress]);
    let waits = Condition::all()
        .add(Column::Status.eq(UploadStatus::Complete))
        .add(Column::Kind.eq(UploadKind::Partial));
    Entity::update_many()
        .col_expr(Column::Status, Expr::value(reason.status()))
        .col_expr(
            Column::LeaseExpiresAt,
            Expr::value(Option::<Timestamp>::None),
        )
        .col_expr(Column::UpdatedAt, Expr::value(now))
        .filter(which.into_condition())
        .filter(Condition::any().add(open).add(waits))
        .exec_with_returning(transaction)
        .await
}

async fn fail_file(
    transaction: &impl ConnectionTrait,
    id: FileId,
    from: FileStatus,
    reason: CancelReason,
    now: Timestamp,
) -> Result<(Option<FileId>, Option<WrittenEvent>), WriteError> {
    use file::Column;
    let batch: Option<Option<BatchId>> = file::Entity::find_by_id(id)
        .select_only()
        .column(Column::BatchId)
        .into_tuple()
        .one(transaction)
        .await?;
    batches::lock(transaction, batch.flatten()).await?;
    let rows = file::Entity::update_many()
        .col_expr(Column::Status, Expr::value(FileStatus::Failed))
        .col_expr(Column::ErrorCode, Expr::value(reason.code()))
        .col_expr(Column::ErrorMessage, Expr::value(reason.message()))
        .col_expr(Column::UpdatedAt, Expr::value(now))
        .filter(Column::Id.eq(id))
        .filter(Column::Status.eq(from))
        .exec_with_returning(transaction)
        .await?;
    let Some(file) = rows.into_iter().next() else {
        return Ok((None, None));
    };
    quota::release(transaction, &file).await?;
    let written = match file.batch_id {
        Some(batch) => batches::settle(transaction, batch, FileOutcome::Failed, now).await?,
        None => None,
    };
    Ok((Some(file.id), written))
}

/// After the commit: notifies waiting clients, and deletes the bytes.
async fn clear(app: &App, closed: ClosedUpload) {
    if let Some(written) = closed.written {
        app.dispatch.deliver(&written.due).await;
    }
    if let Some(file) = closed.file {
        app.dispatch.settled(file).await;
    }
    if let Err(error) = delete_segments(app, &closed.uploads).await {
        tracing::warn!(%error, "segments of cancelled uploads are left to the sweep");
    }
}

/// Deletes the segments that rows of cancelled uploads list. An active writer deletes its own segment when it finds
/// that it cannot count it.
async fn delete_segments(app: &App, uploads: &[UploadId]) -> Result<(), UploadError> {
    if uploads.is_empty() {
        return Ok(());
    }
    let listed = segments::of_uploads(app.db.read(), uploads).await?;
    let mut keys: Vec<StagingKey> = listed
        .into_values()
        .flatten()
        .map(|piece| piece.key)
        .collect();
    // The file that a version without segments created before the first byte.
    keys.extend(uploads.iter().map(|id| StagingKey::unsegmented(id.0)));
    keys.sort_unstable();
    keys.dedup();
    Ok(app.staging.delete(&keys).await?)
}

/// Withdraws the file of a complete upload. Returns false while a worker is processing it.
async fn withdraw(app: &App, upload: &Model) -> Result<bool, UploadError> {
    let (now, id) = (app.clock.now(), upload.file_id);
    let (failed, written) = app
        .db
        .write(move |transaction| {
            Box::pin(async move {
                fail_file(
                    transaction,
                    id,
                    FileStatus::Staged,
                    CancelReason::Aborted,
                    now,
                )
                .await
            })
        })
        .await?;
    if failed.is_some() {
        let closed = ClosedUpload {
            file: failed,
            written,
            ..ClosedUpload::default()
        };
        clear(app, closed).await;
    } else {
        match files::delete(&app.db, &app.clock, &OwnerScope::All, id).await {
            Ok(None) => {}
            Ok(Some(written)) => {
                app.dispatch.deliver(&written.due).await;
                app.dispatch.settled(id).await;
            }
            Err(DeleteError::NotStored(FileStatus::Failed) | DeleteError::NotFound) => {}
            Err(DeleteError::NotStored(_)) => return Ok(false),
            Err(DeleteError::Database(error)) => return Err(error.into()),
            Err(DeleteError::Outbox(error)) => return Err(error.into()),
        }
    }
    mark_withdrawn(app, upload.id, now).await?;
    app.dispatch.purge(&[id]).await;
    Ok(true)
}

/// A crash before this leaves a complete upload of a deleted file, which is reported as gone anyway.
async fn mark_withdrawn(app: &App, id: UploadId, now: Timestamp) -> Result<(), DbErr> {
    app.db
        .write(move |transaction| {
            Box::pin(async move {
                Entity::update_many()
                    .col_expr(Column::Status, Expr::value(UploadStatus::Aborted))
                    .col_expr(Column::UpdatedAt, Expr::value(now))
                    .filter(Column::Id.eq(id))
                    .filter(Column::Status.eq(UploadStatus::Complete))
                    .exec(transaction)
                    .await
                    .map(drop)
            })
        })
        .await
}
