//! The sweep's steps over bytes that no row speaks of.

use super::{MOST_PAGES, PAGE};
use crate::{
    context::Landfall,
    staging::{ListedStaging, StagingError},
    storage::{PROBES, StorageError},
};
use entity::{
    FileId, UploadId,
    file::{self, FileStatus},
    upload,
};
use futures::TryStreamExt;
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter, QuerySelect, sea_query::ExprTrait};
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

#[derive(Debug, thiserror::Error)]
pub(super) enum LitterError {
    #[error("staging could not be searched")]
    Staging(#[from] StagingError),
    #[error("the rows could not be read")]
    Database(#[from] DbErr),
}

/// Bytes in staging whose file or upload has no more use for them.
///
/// A key that some row knows is removed as soon as that row is done with it; one that none knows may belong to a
/// request that is still going on, and is left for `staging.grace`.
pub(super) async fn remove_staging(landfall: &Landfall) -> Result<u64, LitterError> {
    let mut pages = landfall.staging.list();
    let mut removed = 0;
    while let Some(page) = pages.try_next().await? {
        for staged in unused(landfall, page).await? {
            landfall.staging.delete(staged.key).await?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Those of a page of staging that nobody has any more use for.
///
/// # Errors
/// The database's.
pub(crate) async fn unused(
    landfall: &Landfall,
    page: Vec<ListedStaging>,
) -> Result<Vec<ListedStaging>, DbErr> {
    let unknown_since = landfall.clock.before(landfall.config.staging.grace);
    let known = Known::of(landfall, &page).await?;
    let unused = |staged: &ListedStaging| {
        let key = staged.key.owner();
        match (known.rows.contains(&key), known.in_use.contains(&key)) {
            (_, true) => false,
            (true, false) => true,
            (false, false) => staged.modified < unknown_since,
        }
    };
    Ok(page.into_iter().filter(unused).collect())
}

/// What the database says of a page of staging keys. A file's bytes lie under its own id, an upload's under its.
struct Known {
    rows: HashSet<Uuid>,
    in_use: HashSet<Uuid>,
}

impl Known {
    async fn of(landfall: &Landfall, page: &[ListedStaging]) -> Result<Self, DbErr> {
        let (mut rows, mut in_use) = (HashSet::new(), HashSet::new());
        for some in page.chunks(PAGE as usize) {
            let ids = some.iter().map(|staged| FileId(staged.key.owner()));
            let files: Vec<(FileId, Option<String>)> = file::Entity::find()
                .select_only()
                .columns([file::Column::Id, file::Column::StagingKey])
                .filter(file::Column::Id.is_in(ids))
                .into_tuple()
                .all(landfall.db.read())
                .await?;
            for (id, staging) in files {
                rows.insert(id.0);
                if staging.is_some() {
                    in_use.insert(id.0);
                }
            }
            let ids = some.iter().map(|staged| UploadId(staged.key.owner()));
            let uploads: Vec<upload::Model> = upload::Entity::find()
                .filter(upload::Column::Id.is_in(ids))
                .all(landfall.db.read())
                .await?;
            let joined = joined(landfall, &uploads).await?;
            for upload in uploads {
                rows.insert(upload.id.0);
                if is_used(&upload, &joined) {
                    in_use.insert(upload.id.0);
                }
            }
        }
        Ok(Self { rows, in_use })
    }
}

/// The files that partial uploads were joined to and that are not in storage yet.
async fn joined(
    landfall: &Landfall,
    uploads: &[upload::Model],
) -> Result<HashMap<FileId, FileStatus>, DbErr> {
    let files: HashSet<FileId> = uploads
        .iter()
        .filter(|upload| upload.file_id.0 != upload.id.0)
        .map(|upload| upload.file_id)
        .collect();
    let rows: Vec<(FileId, FileStatus)> = file::Entity::find()
        .select_only()
        .columns([file::Column::Id, file::Column::Status])
        .filter(file::Column::Id.is_in(files))
        .filter(
            file::Column::Status
                .eq(FileStatus::Uploading)
                .or(file::Column::StagingKey.is_not_null()),
        )
        .into_tuple()
        .all(landfall.db.read())
        .await?;
    Ok(rows.into_iter().collect())
}

fn is_used(upload: &upload::Model, joined: &HashMap<FileId, FileStatus>) -> bool {
    use upload::UploadStatus::{Complete, InProgress, Init};
    let own = upload.file_id.0 == upload.id.0;
    match (upload.status, joined.get(&upload.file_id)) {
        (Init | InProgress, _) => true,
        // Its bytes are a piece of the file, whatever became of the upload since.
        (_, Some(FileStatus::Uploading)) => upload.status == Complete,
        (_, Some(_)) => true,
        // A complete partial upload waits for the final one that joins it.
        (Complete, None) => own && upload.kind == upload::UploadKind::Partial,
        _ => false,
    }
}

/// Temporary files and open multipart uploads that nobody has written to for `staging.grace`, and objects that a
/// process put to try storage and was killed over.
pub(super) async fn remove_unfinished(landfall: &Landfall) -> Result<u64, StorageError> {
    let before = landfall.clock.before(landfall.config.staging.grace);
    let storage = &landfall.storage;
    let mut removed = storage
        .remove_abandoned(before, PAGE as usize * MOST_PAGES)
        .await? as u64;
    let mut pages = storage.list(PROBES);
    while let Some(page) = pages.try_next().await? {
        for object in page.iter().filter(|object| object.modified < before) {
            if let Ok(key) = object.key.parse() {
                storage.delete(&key).await?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}
