//! The sweep's steps for files.

use super::{MAX_PAGES, PAGE};
use crate::{
    app::App,
    files::{self, DeleteError, OwnerScope},
};
use entity::{
    FileId, Timestamp,
    file::{Column, Entity, FileStatus},
};
use sea_orm::{
    ColumnTrait, Condition, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    sea_query::{Expr, ExprTrait},
};

/// Maximum number of files that cannot be deleted and are skipped before the rest is left to the next sweep.
const MAX_STUCK: usize = 100;

/// Pushes files that are staged, due and unclaimed. Most have a job already, and pushing it again changes nothing.
pub(super) async fn push_staged(app: &App) -> Result<u64, DbErr> {
    let now = app.clock.now();
    let due = Condition::all()
        .add(Column::Status.eq(FileStatus::Staged))
        .add(
            Column::NextAttemptAt
                .is_null()
                .or(Column::NextAttemptAt.lte(now)),
        );
    push_all(app, &due, JobKind::Finalize).await
}

/// Pushes files whose worker has not renewed its lease.
pub(super) async fn push_expired_leases(app: &App) -> Result<u64, DbErr> {
    let left_behind = Condition::all()
        .add(Column::Status.eq(FileStatus::Finalizing))
        .add(Column::LeaseExpiresAt.lt(app.clock.now()));
    push_all(app, &left_behind, JobKind::Finalize).await
}

/// Pushes purges of files that are deleted, or failed and no longer retryable, and still have bytes.
pub(super) async fn push_purges(app: &App) -> Result<u64, DbErr> {
    let unpurged = Condition::all().add(Expr::cust(files::UNPURGED));
    let pushed = push_all(app, &unpurged, JobKind::Purge).await?;
    Ok(pushed + push_no_longer_retryable(app).await?)
}

/// A purge removes the file from this index; more than one page is left to the next sweep.
async fn push_no_longer_retryable(app: &App) -> Result<u64, DbErr> {
    let over: Vec<FileId> = Entity::find()
        .select_only()
        .column(Column::Id)
        // Written out, as the partial index `files_retryable` has it.
        .filter(Expr::cust("retryable_until IS NOT NULL"))
        .filter(Column::RetryableUntil.lte(app.clock.now()))
        .order_by_asc(Column::RetryableUntil)
        .limit(PAGE * MAX_PAGES as u64)
        .into_tuple()
        .all(app.db.read())
        .await?;
    for page in over.chunks(PAGE as usize) {
        app.dispatch.purge(page).await;
    }
    Ok(over.len() as u64)
}

/// The kind of job to push for a file.
#[derive(Clone, Copy)]
enum JobKind {
    Finalize,
    Purge,
}

async fn push_all(app: &App, which: &Condition, push: JobKind) -> Result<u64, DbErr> {
    let (mut pushed, mut after) = (0, None);
    for _ in 0..MAX_PAGES {
        let mut query = Entity::find()
            .select_only()
            .column(Column::Id)
            .filter(which.clone())
            .order_by_asc(Column::Id)
            .limit(PAGE);
        if let Some(after) = after {
            query = query.filter(Column::Id.gt(after));
        }
        let page: Vec<FileId> = query.into_tuple().all(app.db.read()).await?;
        let Some(last) = page.last() else { break };
        after = Some(*last);
        match push {
            JobKind::Finalize => app.dispatch.finalize(&page).await,
            JobKind::Purge => app.dispatch.purge(&page).await,
        }
        pushed += page.len() as u64;
    }
    Ok(pushed)
}

/// Deletes expired files, as their owner would. One that cannot be deleted does not block others.
pub(super) async fn delete_expired(app: &App) -> Result<u64, DeleteError> {
    let (mut deleted, mut stuck, mut fault) = (0, Vec::new(), None);
    for _ in 0..MAX_PAGES {
        let page = expired(app, &stuck).await?;
        if page.is_empty() || stuck.len() >= MAX_STUCK {
            break;
        }
        let mut purged = Vec::with_capacity(page.len());
        for id in page {
            match files::delete(&app.db, &app.clock, &OwnerScope::All, id).await {
                Ok(written) => {
                    purged.push(id);
                    if let Some(written) = written {
                        app.dispatch.deliver(&written.due).await;
                        app.dispatch.settled(id).await;
                        deleted += 1;
                    }
                }
                Err(error) => {
                    tracing::error!(file.id = %id, %error, "an expired file cannot be deleted");
                    stuck.push(id);
                    fault = Some(error);
                }
            }
        }
        app.dispatch.purge(&purged).await;
    }
    match fault {
        Some(fault) => Err(fault),
        None => Ok(deleted),
    }
}

async fn expired(app: &App, stuck: &[FileId]) -> Result<Vec<FileId>, DbErr> {
    let now: Timestamp = app.clock.now();
    let mut query = Entity::find()
        .select_only()
        .column(Column::Id)
        // A literal, not a bound value, so that the partial index `files_expires` is used.
        .filter(Expr::cust("status = 'stored' AND expires_at IS NOT NULL"))
        .filter(Column::ExpiresAt.lte(now))
        .order_by_asc(Column::ExpiresAt)
        .limit(PAGE);
    if !stuck.is_empty() {
        query = query.filter(Column::Id.is_not_in(stuck.iter().copied()));
    }
    query.into_tuple().all(app.db.read()).await
}
