//! The sweep's steps for bytes that no row refers to.
//!
//! **Architecture invariant.** Nothing is deleted after a single check. Bytes whose file or upload has ended are
//! checked again right before they are deleted; an end is final, and its staged bytes are never needed again. All other
//! bytes that no row lists become candidates, and a later sweep deletes them after `staging.grace` if they are still
//! unused. All of this happens only while the installation's marker is visible, because otherwise these may be the
//! bytes of another installation or database.

use super::{MAX_PAGES, PAGE, candidates};
use crate::{
    app::App,
    audit::orphans,
    files,
    installation::{self, InstallationError, MarkedLocation, MarkerError},
    staging::{ListedStaging, StagingError, StagingKey},
    storage::{PROBES, StorageError, StorageKey, UnfinishedWrite},
};
use entity::{
    FileId, UploadId,
    cleanup_candidate::Place as Found,
    file::{self, FileStatus},
    upload::{self, UploadStatus},
};
use futures::TryStreamExt;
use sea_orm::{
    ColumnTrait, DbErr, EntityTrait, QueryFilter, QuerySelect,
    sea_query::{Expr, ExprTrait},
};
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

#[derive(Debug, thiserror::Error)]
pub(super) enum LeftoversError {
    #[error("staging could not be listed")]
    Staging(#[from] StagingError),
    #[error("storage could not be listed")]
    Storage(#[from] StorageError),
    #[error("nothing can be removed now")]
    Marker(#[from] MarkerError),
    #[error("the installation's marker could not be checked")]
    Installation(#[from] InstallationError),
    #[error("the rows could not be read or written")]
    Database(#[from] DbErr),
}

async fn require_marker(app: &App, place: MarkedLocation) -> Result<(), LeftoversError> {
    match installation::marker_visible(app, place).await? {
        true => Ok(()),
        false => Err(MarkerError::Missing.into()),
    }
}

/// The unused bytes on a page of staging.
#[derive(Debug, Default)]
pub(crate) struct StagingLeftovers {
    /// Bytes of files and uploads that have ended, so they will never be needed.
    pub(crate) ended: Vec<ListedStaging>,
    /// Bytes that no row lists; they may belong to a request that has not written its row yet.
    pub(crate) unlisted: Vec<ListedStaging>,
}

/// Returns the unused bytes on a page of staging.
///
/// # Errors
/// Database errors.
pub(crate) async fn find_leftovers(
    app: &App,
    page: Vec<ListedStaging>,
) -> Result<StagingLeftovers, DbErr> {
    let keys: Vec<StagingKey> = page.iter().map(|staged| staged.key).collect();
    let in_use = files::staging_in_use(app.db.read(), &keys).await?;
    let unused: Vec<ListedStaging> = page
        .into_iter()
        .filter(|staged| !in_use.contains(&staged.key))
        .collect();
    let ended = ended(app, &unused).await?;
    let (ended, unlisted) = unused
        .into_iter()
        .partition(|staged| ended.contains(&staged.key.owner()));
    Ok(StagingLeftovers { ended, unlisted })
}

/// Returns those owners of staged bytes that have ended for good.
async fn ended(app: &App, unused: &[ListedStaging]) -> Result<HashSet<Uuid>, DbErr> {
    let owners: HashSet<Uuid> = unused.iter().map(|staged| staged.key.owner()).collect();
    let owners: Vec<Uuid> = owners.into_iter().collect();
    let mut ended = HashSet::new();
    for page in owners.chunks(PAGE as usize) {
        // Uploads first, because bytes move from uploads to files.
        let uploads: Vec<(UploadId, FileId, UploadStatus)> = upload::Entity::find()
            .select_only()
            .columns([
                upload::Column::Id,
                upload::Column::FileId,
                upload::Column::Status,
            ])
            .filter(upload::Column::Id.is_in(page.iter().copied().map(UploadId)))
            .into_tuple()
            .all(app.db.read())
            .await?;
        let uploads: HashMap<Uuid, (FileId, UploadStatus)> = uploads
            .into_iter()
            .map(|(id, file, status)| (id.0, (file, status)))
            .collect();
        let of = |owner: &Uuid| uploads.get(owner).map_or(FileId(*owner), |(file, _)| *file);
        let files = file_ends(app, page.iter().map(of).collect()).await?;
        ended.extend(page.iter().copied().filter(|owner| {
            let upload = uploads.get(owner).map(|(_, status)| *status);
            match (upload, files.get(&of(owner))) {
                (Some(UploadStatus::Init | UploadStatus::InProgress), _) => false,
                (_, Some(has_ended)) => *has_ended,
                // A cancelled partial upload; a complete one may still be concatenated.
                (Some(status), None) => status != UploadStatus::Complete,
                (None, None) => false,
            }
        }));
    }
    Ok(ended)
}

/// Returns for each existing file whether it has ended and needs no staged bytes.
async fn file_ends(app: &App, ids: Vec<FileId>) -> Result<HashMap<FileId, bool>, DbErr> {
    let rows: Vec<(FileId, FileStatus, bool)> = file::Entity::find()
        .select_only()
        .columns([file::Column::Id, file::Column::Status])
        .column_as(
            Expr::col(file::Column::StagingKey).is_not_null(),
            "has_staging",
        )
        .filter(file::Column::Id.is_in(ids))
        .into_tuple()
        .all(app.db.read())
        .await?;
    let has_ended = |status, has_staging: bool| match status {
        FileStatus::Stored => true,
        FileStatus::Failed | FileStatus::Deleted => !has_staging,
        _ => false,
    };
    Ok(rows
        .into_iter()
        .map(|(id, status, has_staging)| (id, has_ended(status, has_staging)))
        .collect())
}

/// Deletes staged bytes of ended files and uploads, and due candidates.
pub(super) async fn remove_staging(app: &App) -> Result<u64, LeftoversError> {
    require_marker(app, MarkedLocation::Staging).await?;
    let (began, grace) = (app.clock.now(), app.config.staging.grace);
    let mut pages = app.staging.list();
    let mut removed = 0;
    while let Some(page) = pages.try_next().await? {
        let StagingLeftovers { ended, unlisted } = find_leftovers(app, page).await?;
        crate::failpoint!("sweep.seen");
        let names = unlisted.iter().map(|staged| staged.key.to_string());
        let due =
            candidates::record_seen(&app.db, &app.clock, Found::Staging, names.collect(), grace)
                .await?;
        let written_before = app.clock.before(grace);
        let is_due = |staged: &ListedStaging| {
            due.contains(&staged.key.to_string()) && staged.modified < written_before
        };
        let unlisted: Vec<_> = unlisted.into_iter().filter(is_due).collect();
        if ended.is_empty() && unlisted.is_empty() {
            continue;
        }
        removed += delete_again_unused(app, ended, unlisted).await?;
    }
    candidates::forget_unseen(&app.db, Found::Staging, began).await?;
    Ok(removed)
}

/// Deletes the bytes that a second check finds unused as well.
async fn delete_again_unused(
    app: &App,
    ended: Vec<ListedStaging>,
    unlisted: Vec<ListedStaging>,
) -> Result<u64, LeftoversError> {
    require_marker(app, MarkedLocation::Staging).await?;
    let still_ended = find_leftovers(app, ended).await?.ended;
    let still_unlisted = find_leftovers(app, unlisted).await?.unlisted;
    let (mut removed, mut stuck) = (0, HashSet::new());
    for staged in still_ended.iter().chain(&still_unlisted) {
        crate::failpoint!("sweep.delete");
        match app.staging.delete(&[staged.key]).await {
            Ok(()) => removed += 1,
            // One that cannot be removed keeps no other from it.
            Err(error) => {
                tracing::warn!(key = %staged.key, %error, "staged bytes stay until the next sweep");
                stuck.insert(staged.key);
            }
        }
    }
    let gone = still_unlisted
        .iter()
        .filter(|staged| !stuck.contains(&staged.key));
    let names = gone.map(|staged| staged.key.to_string());
    candidates::forget(&app.db, Found::Staging, names.collect()).await?;
    Ok(removed)
}

/// Removes unused temporary files, open multipart uploads and objects of startup checks.
pub(super) async fn remove_unfinished(app: &App) -> Result<u64, LeftoversError> {
    require_marker(app, MarkedLocation::Storage).await?;
    let (began, grace) = (app.clock.now(), app.config.staging.grace);
    let mut removed = 0;
    let mut pages = app.storage.unfinished();
    while let Some(page) = pages.try_next().await? {
        // Whatever its age: another process may have a shorter grace period, and must not find its candidates
        // forgotten.
        let unused = unused_writes(app, page).await?;
        let ids = unused.iter().map(|one| one.id.clone()).collect();
        let due =
            candidates::record_seen(&app.db, &app.clock, Found::Unfinished, ids, grace).await?;
        let due: Vec<UnfinishedWrite> = unused
            .into_iter()
            .filter(|one| due.contains(&one.id))
            .collect();
        for one in abandoned(app, due, app.clock.before(grace)).await? {
            match app.storage.remove_unfinished(&one).await {
                Ok(()) => removed += 1,
                // One that cannot be removed keeps no other from it.
                Err(error) => {
                    tracing::warn!(id = %one.id, %error, "what was not finished stays until the next sweep");
                }
            }
        }
    }
    removed += remove_probes(app).await?;
    candidates::forget_unseen(&app.db, Found::Unfinished, began).await?;
    Ok(removed)
}

async fn remove_probes(app: &App) -> Result<u64, LeftoversError> {
    let grace = app.config.staging.grace;
    let mut removed = 0;
    let mut pages = app.storage.list(PROBES);
    while let Some(page) = pages.try_next().await? {
        let names = page.iter().map(|object| object.key.clone()).collect();
        let due =
            candidates::record_seen(&app.db, &app.clock, Found::Unfinished, names, grace).await?;
        for key in &due {
            if let Ok(key) = key.parse() {
                app.storage.delete(&key).await?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

/// Returns those that were started, or last written to, before `since`, and that no file in progress needs.
///
/// # Errors
/// Database errors.
pub(crate) async fn abandoned(
    app: &App,
    page: Vec<UnfinishedWrite>,
    since: entity::Timestamp,
) -> Result<Vec<UnfinishedWrite>, DbErr> {
    let mut unused = unused_writes(app, page).await?;
    unused.retain(|one| one.since < since);
    Ok(unused)
}

/// Returns those that no file in progress needs. A multipart upload to a key that Landfall never uses belongs to
/// another program.
async fn unused_writes(
    app: &App,
    mut page: Vec<UnfinishedWrite>,
) -> Result<Vec<UnfinishedWrite>, DbErr> {
    let keys: Vec<String> = page.iter().filter_map(|one| one.key.clone()).collect();
    let mut written = HashSet::new();
    for some in keys.chunks(PAGE as usize) {
        let rows: Vec<String> = file::Entity::find()
            .select_only()
            .column(file::Column::StorageKey)
            .filter(file::Column::StorageKey.is_in(some))
            .filter(file::Column::Status.is_in([FileStatus::Staged, FileStatus::Finalizing]))
            .into_tuple()
            .all(app.db.read())
            .await?;
        written.extend(rows);
    }
    page.retain(|one| {
        let key = one.key.as_ref();
        key.is_none_or(|key| {
            key.starts_with(PROBES) || StorageKey::is_for_upload(key) && !written.contains(key)
        })
    });
    Ok(page)
}

/// Removes objects that the audit set aside seven days ago, if still no row refers to them.
pub(super) async fn remove_orphans(app: &App) -> Result<u64, LeftoversError> {
    let mut removed = 0;
    let mut after = String::new();
    for _ in 0..MAX_PAGES {
        let page = candidates::due(
            &app.db,
            &app.clock,
            Found::Orphaned,
            orphans::RETENTION,
            &after,
        )
        .await?;
        let Some(last) = page.last() else { break };
        after.clone_from(last);
        require_marker(app, MarkedLocation::Storage).await?;
        for name in &page {
            match orphans::remove(app, name).await {
                Ok(was_removed) => {
                    removed += u64::from(was_removed);
                    candidates::forget(&app.db, Found::Orphaned, vec![name.clone()]).await?;
                }
                // One that cannot be removed does not block others.
                Err(error) => {
                    tracing::warn!(%error, "an object that was set aside could not be removed, the next sweep will retry");
                }
            }
        }
    }
    Ok(removed)
}
