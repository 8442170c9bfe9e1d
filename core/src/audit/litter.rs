//! I5: bytes that no row speaks of, in storage, in staging, and half written.

use super::{Audit, AuditError, Invariant, Offender, PAGE, Repair, Step, chain, orphan};
use crate::{
    context::Landfall,
    staging::ListedStaging,
    storage::{ListedObject, StorageKey, Unfinished},
    sweep::litter::unused,
};
use entity::file::{Column, Entity, FileStatus};
use futures::TryStreamExt;
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter, QuerySelect};
use std::{collections::HashSet, time::Duration};

/// Where stored objects are: what others keep elsewhere in the bucket is theirs.
const OBJECTS: &str = "uploads/";

/// How long the end of a request or a job may take to remove what its commit has set free.
const SETTLE: Duration = Duration::from_secs(1);

pub(super) async fn check(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    objects(audit).await?;
    staging(audit).await?;
    unfinished(audit).await
}

async fn objects(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    audit.begins(Step::Objects, None);
    let landfall = audit.landfall;
    let mut pages = landfall.storage.list(OBJECTS);
    while let Some(page) = pages.try_next().await? {
        let owned = owned(landfall, page.iter().map(|object| object.key.clone())).await?;
        for object in page.iter().filter(|object| !owned.contains(&object.key)) {
            object_without_row(audit, object).await?;
        }
        audit.looked_at(page.len());
    }
    Ok(())
}

async fn object_without_row(
    audit: &mut Audit<'_>,
    object: &ListedObject,
) -> Result<(), AuditError> {
    let landfall = audit.landfall;
    let key = object.key.parse::<StorageKey>();
    // A purge or a loser of a lease may have removed it since it was listed.
    if let Ok(key) = &key
        && landfall.storage.head(key).await?.is_none()
    {
        return Ok(());
    }
    if owned(landfall, std::iter::once(object.key.clone()))
        .await?
        .contains(&object.key)
    {
        return Ok(());
    }
    // A worker that was killed may have sent a request its store still carries out.
    let settled = landfall.clock.before(2 * landfall.config.workers.lease);
    let repair = match (audit.options.repair, key) {
        (false, _) => Repair::NotAsked,
        (true, Err(_)) => Repair::Left("Landfall wrote no object of such a name".to_owned()),
        (true, Ok(_)) if object.modified > settled => {
            Repair::Left("it is too young: whoever wrote it may still be at it".to_owned())
        }
        (true, Ok(key)) => match orphan::remove(landfall, &key).await {
            Ok(true) => Repair::Done("the object was removed"),
            // A file has taken the key in this moment.
            Ok(false) => return Ok(()),
            Err(error) => Repair::Left(chain(&error)),
        },
    };
    let offender = Offender::new(Invariant::I5, &object.key, "no row names the object");
    audit.found(offender, repair).await?;
    Ok(())
}

/// Those of the keys that a row names.
async fn owned(
    landfall: &Landfall,
    keys: impl Iterator<Item = String>,
) -> Result<HashSet<String>, DbErr> {
    let keys: Vec<String> = keys.collect();
    let mut owned = HashSet::new();
    for some in keys.chunks(PAGE as usize) {
        let rows: Vec<String> = Entity::find()
            .select_only()
            .column(Column::StorageKey)
            .filter(Column::StorageKey.is_in(some))
            .into_tuple()
            .all(landfall.db.read())
            .await?;
        owned.extend(rows);
    }
    Ok(owned)
}

async fn staging(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    audit.begins(Step::Staging, None);
    let landfall = audit.landfall;
    let mut pages = landfall.staging.list();
    while let Some(page) = pages.try_next().await? {
        let looked_at = page.len();
        let suspects = unused(landfall, page).await?;
        if !suspects.is_empty() {
            // A commit comes a moment before what it sets free is removed.
            tokio::time::sleep(SETTLE).await;
        }
        for staged in unused(landfall, suspects).await? {
            if landfall.staging.len(staged.key).await?.is_some() {
                staging_without_upload(audit, staged).await?;
            }
        }
        audit.looked_at(looked_at);
    }
    Ok(())
}

async fn staging_without_upload(
    audit: &mut Audit<'_>,
    staged: ListedStaging,
) -> Result<(), AuditError> {
    let repair = match audit.options.repair {
        false => Repair::NotAsked,
        true => match audit.landfall.staging.delete(staged.key).await {
            Ok(()) => Repair::Done("the staged bytes were removed"),
            Err(error) => Repair::Left(chain(&error)),
        },
    };
    let offender = Offender::new(
        Invariant::I5,
        staged.key,
        "no live upload or file has a use for these staged bytes",
    );
    audit.found(offender, repair).await?;
    Ok(())
}

async fn unfinished(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    audit.begins(Step::Unfinished, None);
    let landfall = audit.landfall;
    let mut pages = landfall.storage.unfinished();
    while let Some(page) = pages.try_next().await? {
        let written = being_written(landfall, &page).await?;
        let (old, settled) = (
            landfall.clock.before(landfall.config.staging.grace),
            landfall.clock.before(2 * landfall.config.workers.lease),
        );
        for one in &page {
            // One for a key that no file on its way has can only be a dead worker's.
            let abandoned = match &one.key {
                Some(key) => one.since < settled && !written.contains(key),
                None => false,
            };
            if abandoned || one.since < old {
                left_unfinished(audit, one).await?;
            }
        }
        audit.looked_at(page.len());
    }
    Ok(())
}

/// Those of the keys that a file on its way has.
async fn being_written(landfall: &Landfall, page: &[Unfinished]) -> Result<HashSet<String>, DbErr> {
    let keys: Vec<&String> = page.iter().filter_map(|one| one.key.as_ref()).collect();
    let mut written = HashSet::new();
    for some in keys.chunks(PAGE as usize) {
        let rows: Vec<String> = Entity::find()
            .select_only()
            .column(Column::StorageKey)
            .filter(Column::StorageKey.is_in(some.iter().copied()))
            .filter(Column::Status.is_in([FileStatus::Staged, FileStatus::Finalizing]))
            .into_tuple()
            .all(landfall.db.read())
            .await?;
        written.extend(rows);
    }
    Ok(written)
}

async fn left_unfinished(audit: &mut Audit<'_>, one: &Unfinished) -> Result<(), AuditError> {
    let (what, done) = match &one.key {
        Some(key) => (
            format!("the multipart upload to {key} is nobody's"),
            "it was aborted",
        ),
        None => (
            "the temporary file is nobody's".to_owned(),
            "it was removed",
        ),
    };
    let repair = match audit.options.repair {
        false => Repair::NotAsked,
        true => match audit.landfall.storage.remove_unfinished(one).await {
            Ok(()) => Repair::Done(done),
            Err(error) => Repair::Left(chain(&error)),
        },
    };
    let offender = Offender::new(Invariant::I5, &one.id, what);
    audit.found(offender, repair).await?;
    Ok(())
}
