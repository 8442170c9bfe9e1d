//! Expires idle uploads and deletes closed ones after their retention. Run by the sweep.

use super::{
    UploadError,
    cancel::{CancelReason, cancel},
};
use crate::{app::App, batcher::ClassifyError, db};
use entity::{
    FileId, Timestamp, UploadId,
    file::{self, FileStatus},
    part,
    upload::{Column, Entity, Model, UploadKind, UploadStatus},
    upload_segment,
};
use sea_orm::{
    ColumnTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    sea_query::{Expr, ExprTrait},
};
use std::collections::HashSet;

/// Uploads read per query.
const PAGE: u64 = 200;

// Literals, not bound values, so that the partial indexes are used: `uploads_open`, `uploads_waiting`,
// `uploads_closed`.
const OPEN: &str = "status IN ('init', 'in_progress')";
const WAITING: &str = "kind = 'partial' AND status = 'complete'";
const CLOSED: &str = "status NOT IN ('init', 'in_progress')";

/// Maximum number of pages per call; the rest is left to the next call.
const MAX_PAGES: usize = 100;

/// Maximum number of uploads that cannot be expired before the rest is left to the next sweep.
const MAX_STUCK: usize = 100;

/// Expires uploads that were idle for longer than `uploads.session_ttl`: their files fail, and their bytes are deleted.
/// Returns the number of uploads. Works in bounded pages; may run concurrently, and be killed at any point. An upload
/// that cannot be expired does not stop the others.
///
/// # Errors
/// Database errors, and the error of the last upload that could not be expired.
pub async fn expire_due(app: &App) -> Result<u64, UploadError> {
    let (mut expired, mut stuck, mut fault) = (0, Vec::new(), None);
    for _ in 0..MAX_PAGES {
        let page = due(app, &stuck).await?;
        if page.is_empty() || stuck.len() >= MAX_STUCK {
            break;
        }
        for upload in page {
            match expire(app, &upload).await {
                Ok(is_expired) => expired += u64::from(is_expired),
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => {
                    tracing::error!(upload.id = %upload.id, %error, "an upload cannot be expired");
                    stuck.push(upload.id);
                    fault = Some(error);
                }
            }
        }
    }
    match fault {
        Some(fault) => Err(fault),
        None => Ok(expired),
    }
}

/// False for one that is put off, or was closed meanwhile.
async fn expire(app: &App, upload: &Model) -> Result<bool, UploadError> {
    if upload.kind == UploadKind::Final
        && let Some(later) = partials_expire_at(app, upload).await?
    {
        reschedule(app, upload.id, later).await?;
        return Ok(false);
    }
    cancel(app, upload.id, CancelReason::Expired).await
}

/// Returns open uploads, and complete partial uploads that were never concatenated.
async fn due(app: &App, stuck: &[UploadId]) -> Result<Vec<Model>, DbErr> {
    let left_over = Expr::cust(WAITING).and(Expr::col(Column::FileId).equals(Column::Id));
    let now = app.clock.now();
    let mut found = Vec::new();
    // One after the other, because each has its own index.
    for which in [Expr::cust(OPEN), left_over] {
        let mut query = Entity::find().filter(which);
        if !stuck.is_empty() {
            query = query.filter(Column::Id.is_not_in(stuck.iter().copied()));
        }
        let rows = query
            .filter(Column::ExpiresAt.lt(now))
            // An active writer is not idle, however short the time is.
            .filter(
                Column::LeaseExpiresAt
                    .is_null()
                    .or(Column::LeaseExpiresAt.lte(now)),
            )
            .order_by_asc(Column::ExpiresAt)
            .limit(PAGE)
            .all(app.db.read())
            .await?;
        found.extend(rows);
    }
    Ok(found)
}

/// Returns when the last of a final upload's partial uploads that still accept bytes expires; `None` if there is none.
async fn partials_expire_at(app: &App, upload: &Model) -> Result<Option<Timestamp>, DbErr> {
    Entity::find()
        .select_only()
        .column(Column::ExpiresAt)
        .filter(Column::FileId.eq(upload.file_id))
        .filter(Column::Kind.eq(UploadKind::Partial))
        .filter(Column::Status.is_in([UploadStatus::Init, UploadStatus::InProgress]))
        .filter(Column::ExpiresAt.gte(app.clock.now()))
        .order_by_desc(Column::ExpiresAt)
        .into_tuple()
        .one(app.db.read())
        .await
}

async fn reschedule(app: &App, id: UploadId, until: Timestamp) -> Result<(), DbErr> {
    app.db
        .write(move |transaction| {
            Box::pin(async move {
                Entity::update_many()
                    .col_expr(Column::ExpiresAt, Expr::value(until))
                    .filter(Column::Id.eq(id))
                    .exec(transaction)
                    .await
                    .map(drop)
            })
        })
        .await
}

/// Deletes the rows of closed uploads, and of their parts, once their retention is over and their files are final.
/// Returns the number of uploads. Until then, a client whose last response was lost can still ask. An upload that
/// cannot be deleted does not stop the others.
///
/// # Errors
/// Database errors; the last one, where single uploads failed.
pub async fn forget_closed(app: &App) -> Result<u64, DbErr> {
    let (mut forgotten, mut after, mut fault) = (0, None, None);
    for _ in 0..MAX_PAGES {
        let page = closed_before(app, after).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.expires_at);
        let whole = page.len() as u64 == PAGE;
        for id in no_longer_used(app, &page).await? {
            match forget(app, id).await {
                Ok(()) => forgotten += 1,
                Err(error) if db::is_transient(&error) => return Err(error),
                Err(error) => {
                    tracing::error!(upload.id = %id, %error, "a closed upload cannot be forgotten");
                    fault = Some(error);
                }
            }
        }
        if !whole {
            break;
        }
    }
    match fault {
        Some(fault) => Err(fault),
        None => Ok(forgotten),
    }
}

async fn closed_before(app: &App, after: Option<Timestamp>) -> Result<Vec<Model>, DbErr> {
    let mut query = Entity::find()
        .filter(Expr::cust(CLOSED))
        .filter(Column::ExpiresAt.lt(app.clock.before(app.config.uploads.session_ttl)))
        .order_by_asc(Column::ExpiresAt)
        .limit(PAGE);
    if let Some(after) = after {
        query = query.filter(Column::ExpiresAt.gt(after));
    }
    query.all(app.db.read()).await
}

/// Returns the uploads that can be deleted. Those whose file is in progress still have staged bytes, which their rows
/// protect from the sweep.
async fn no_longer_used(app: &App, page: &[Model]) -> Result<Vec<UploadId>, DbErr> {
    let files = page.iter().map(|upload| upload.file_id);
    let on_their_way: Vec<FileId> = file::Entity::find()
        .select_only()
        .column(file::Column::Id)
        .filter(file::Column::Id.is_in(files))
        .filter(
            file::Column::Status
                .is_in([
                    FileStatus::Uploading,
                    FileStatus::Staged,
                    FileStatus::Finalizing,
                ])
                .or(file::Column::StagingKey.is_not_null()),
        )
        .into_tuple()
        .all(app.db.read())
        .await?;
    let on_their_way: HashSet<FileId> = on_their_way.into_iter().collect();
    Ok(page
        .iter()
        .filter(|upload| !on_their_way.contains(&upload.file_id))
        .map(|upload| upload.id)
        .collect())
}

/// An upload has up to ten thousand parts and many segments, so uploads are deleted one at a time.
async fn forget(app: &App, id: UploadId) -> Result<(), DbErr> {
    app.db
        .write(move |transaction| {
            Box::pin(async move {
                part::Entity::delete_many()
                    .filter(part::Column::UploadId.eq(id))
                    .exec(transaction)
                    .await?;
                upload_segment::Entity::delete_many()
                    .filter(upload_segment::Column::UploadId.eq(id))
                    .exec(transaction)
                    .await?;
                Entity::delete_by_id(id).exec(transaction).await.map(drop)
            })
        })
        .await
}
