//! The sweep's steps over bytes that no row has a use for.
//!
//! **Architecture invariant.** Nothing is deleted on one look. Bytes whose file or upload has ended are asked about once
//! more right before they are deleted; an end is final, and what follows it never needs staging again. Everything
//! else that no row lists becomes a candidate, and a later sweep deletes it once `staging.grace` is over, if it is still
//! unused. All of it only while the installation's marker is visible: otherwise these may be another installation's
//! bytes, or another database's.

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
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};
use uuid::Uuid;

/// How long objects that the audit set aside are kept.
pub(crate) const ORPHAN_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

#[derive(Debug, thiserror::Error)]
pub(super) enum LeftoversError {
    #[error("staging could not be searched")]
    Staging(#[from] StagingError),
    #[error("storage could not be searched")]
    Storage(#[from] StorageError),
    #[error("nothing is removed now")]
    Marker(#[from] MarkerError),
    #[error("the installation's marker could not be looked at")]
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

/// What a page of staging holds that no row has a use for.
#[derive(Debug, Default)]
pub(crate) struct StagingLeftovers {
    /// Of files and uploads that have ended: of no use any more, whatever happens.
    pub(crate) ended: Vec<ListedStaging>,
    /// Listed by no row: perhaps of a request that has not written its row yet.
    pub(crate) unlisted: Vec<ListedStaging>,
}

/// Sorts out what of a page of staging is left over.
///
/// # Errors
/// The database's.
pub(crate) async fn sort_out(
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

/// Those of the owners of staged bytes that have ended and never begin again.
async fn ended(app: &App, unused: &[ListedStaging]) -> Result<HashSet<Uuid>, DbErr> {
    let owners: HashSet<Uuid> = unused.iter().map(|staged| staged.key.owner()).collect();
    let owners: Vec<Uuid> = owners.into_iter().collect();
    let mut ended = HashSet::new();
    for page in owners.chunks(PAGE as usize) {
        // Uploads first: bytes move from them to files.
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
                // A partial upload that was given up; a complete one may still be joined.
                (Some(status), None) => status != UploadStatus::Complete,
                (None, None) => false,
            }
        }));
    }
    Ok(ended)
}

/// Of each file that has a row, whether it has ended and needs nothing of staging.
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

/// Removes staged bytes of what has ended, and candidates whose time is over.
pub(super) async fn remove_staging(app: &App) -> Result<u64, LeftoversError> {
    require_marker(app, MarkedLocation::Staging).await?;
    let (began, grace) = (app.clock.now(), app.config.staging.grace);
    let mut pages = app.staging.list();
    let mut removed = 0;
    while let Some(page) = pages.try_next().await? {
        let StagingLeftovers { ended, unlisted } = sort_out(app, page).await?;
        crate::failpoint!("sweep.seen");
        let names = unlisted.iter().map(|staged| staged.key.to_string());
        let due =
            candidates::see(&app.db, &app.clock, Found::Staging, names.collect(), grace).await?;
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

/// Deletes what a second look finds as the first did.
async fn delete_again_unused(
    app: &App,
    ended: Vec<ListedStaging>,
    unlisted: Vec<ListedStaging>,
) -> Result<u64, LeftoversError> {
    require_marker(app, MarkedLocation::Staging).await?;
    let still_ended = sort_out(app, ended).await?.ended;
    let still_unlisted = sort_out(app, unlisted).await?.unlisted;
    let mut removed = 0;
    for staged in still_ended.iter().chain(&still_unlisted) {
        crate::failpoint!("sweep.delete");
        app.staging.delete(&[staged.key]).await?;
        removed += 1;
    }
    let names = still_unlisted.iter().map(|staged| staged.key.to_string());
    candidates::forget(&app.db, Found::Staging, names.collect()).await?;
    Ok(removed)
}

/// Removes temporary files, open multipart uploads and objects of start-up checks that nobody has a use for.
pub(super) async fn remove_unfinished(app: &App) -> Result<u64, LeftoversError> {
    require_marker(app, MarkedLocation::Storage).await?;
    let (began, grace) = (app.clock.now(), app.config.staging.grace);
    let mut removed = 0;
    let mut pages = app.storage.unfinished();
    while let Some(page) = pages.try_next().await? {
        // However young: another process may have a shorter grace, and must not find its candidates forgotten.
        let unused = without_use(app, page).await?;
        let ids = unused.iter().map(|one| one.id.clone()).collect();
        let due = candidates::see(&app.db, &app.clock, Found::Unfinished, ids, grace).await?;
        let due: Vec<UnfinishedWrite> = unused
            .into_iter()
            .filter(|one| due.contains(&one.id))
            .collect();
        for one in abandoned(app, due, app.clock.before(grace)).await? {
            app.storage.remove_unfinished(&one).await?;
            removed += 1;
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
        let due = candidates::see(&app.db, &app.clock, Found::Unfinished, names, grace).await?;
        for key in &due {
            if let Ok(key) = key.parse() {
                app.storage.delete(&key).await?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

/// Those that were begun, or last written to, before `since`, and that no file on its way to storage has a use for.
///
/// # Errors
/// The database's.
pub(crate) async fn abandoned(
    app: &App,
    page: Vec<UnfinishedWrite>,
    since: entity::Timestamp,
) -> Result<Vec<UnfinishedWrite>, DbErr> {
    let mut unused = without_use(app, page).await?;
    unused.retain(|one| one.since < since);
    Ok(unused)
}

/// Those that no file on its way to storage has a use for. A multipart upload to a key Landfall would never choose is
/// another program's.
async fn without_use(
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
        key.is_none_or(|key| StorageKey::is_for_upload(key) && !written.contains(key))
    });
    Ok(page)
}

/// Removes objects that the audit set aside, once they were kept for seven days and still no row names them.
pub(super) async fn remove_orphans(app: &App) -> Result<u64, LeftoversError> {
    let mut removed = 0;
    let mut after = String::new();
    for _ in 0..MAX_PAGES {
        let page = candidates::due(
            &app.db,
            &app.clock,
            Found::Orphaned,
            ORPHAN_RETENTION,
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
                // One that cannot be removed keeps no other from it.
                Err(error) => {
                    tracing::warn!(%error, "an object that was set aside stays until the next sweep");
                }
            }
        }
    }
    Ok(removed)
}
