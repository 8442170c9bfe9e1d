//! I5: bytes that no row refers to, in storage, in staging, and in unfinished writes.

use super::{
    Audit, AuditError, AuditStep, Invariant, PAGE, RepairOutcome, Violation, chain, orphans,
};
use crate::{
    app::App,
    staging::ListedStaging,
    storage::{ListedObject, PROBES, StorageKey, UnfinishedWrite},
    sweep::{
        candidates,
        leftovers::{abandoned, find_leftovers},
    },
};
use entity::{
    FileId,
    cleanup_candidate::Place,
    file::{Column, Entity, FileStatus},
};
use futures::{StreamExt, TryStreamExt};
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter, QuerySelect};
use std::{collections::HashMap, time::Duration};

/// Prefix of stored objects. Everything else in the bucket belongs to others.
const OBJECTS: &str = "uploads/";

/// Up to this many objects without a row are repaired whatever their share of all objects is.
const FEW_ORPHANS: u64 = 100;

/// Maximum number of objects without a row that one audit lists and repairs. Any more are only counted.
const MAX_ORPHANS_HELD: usize = 100_000;

/// How long a request or a job may take after its commit to remove what the commit released.
const SETTLE_DELAY: Duration = Duration::from_secs(1);

pub(super) async fn check(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    objects(audit).await?;
    staging(audit).await?;
    unfinished(audit).await
}

async fn objects(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    audit.step_started(AuditStep::Objects, None);
    let app = audit.app;
    let mut pages = app.storage.list(OBJECTS).chain(app.storage.list(PROBES));
    let (mut orphans, mut unlisted, mut total) = (Vec::new(), 0_u64, 0_u64);
    while let Some(page) = pages.try_next().await? {
        let rows = files_by_key(app, &page).await?;
        for object in &page {
            match rows.get(&object.key) {
                Some(row) if row.is_as_stored(object) => audit.seen.add(row.id),
                Some(_) => {}
                None if !is_orphan(app, object).await? => {}
                None if orphans.len() < MAX_ORPHANS_HELD => orphans.push(object.clone()),
                None => unlisted += 1,
            }
        }
        total += page.len() as u64;
        audit.checked_more(page.len());
    }
    audit.seen.sort();
    let count = orphans.len() as u64 + unlisted;
    let refusal = refusal(audit, count, total);
    for object in &orphans {
        object_without_row(audit, object, refusal.as_deref()).await?;
    }
    audit.report.count_unlisted(Invariant::I5, unlisted);
    Ok(())
}

/// A row that refers to an object.
struct ReferencingFile {
    id: FileId,
    size_bytes: i64,
    status: FileStatus,
}

impl ReferencingFile {
    fn is_as_stored(&self, object: &ListedObject) -> bool {
        self.status == FileStatus::Stored && i64::try_from(object.size) == Ok(self.size_bytes)
    }
}

async fn files_by_key(
    app: &App,
    page: &[ListedObject],
) -> Result<HashMap<String, ReferencingFile>, DbErr> {
    let mut named = HashMap::with_capacity(page.len());
    for some in page.chunks(PAGE as usize) {
        let rows: Vec<(String, FileId, i64, FileStatus)> = Entity::find()
            .select_only()
            .columns([
                Column::StorageKey,
                Column::Id,
                Column::SizeBytes,
                Column::Status,
            ])
            .filter(Column::StorageKey.is_in(some.iter().map(|object| object.key.as_str())))
            .into_tuple()
            .all(app.db.read())
            .await?;
        named.extend(rows.into_iter().map(|(key, id, size_bytes, status)| {
            let row = ReferencingFile {
                id,
                size_bytes,
                status,
            };
            (key, row)
        }));
    }
    Ok(named)
}

/// Whether an object without a row still exists, still has no row, belongs to Landfall, and was not set aside.
async fn is_orphan(app: &App, object: &ListedObject) -> Result<bool, AuditError> {
    // A purge, or a worker that lost its lease, may have removed it since it was listed.
    if let Ok(key) = object.key.parse::<StorageKey>()
        && app.storage.head(&key).await?.is_none()
    {
        return Ok(false);
    }
    // Another process may be starting right now.
    if object.key.starts_with(PROBES) && !is_settled(app, object) {
        return Ok(false);
    }
    if !files_by_key(app, std::slice::from_ref(object))
        .await?
        .is_empty()
        || orphans::set_aside_already(app, &object.key).await?
    {
        return Ok(false);
    }
    Ok(orphans::is_ours(app, object).await?)
}

/// Whether the object is old enough: a worker that was killed may have sent a request that the store is still carrying
/// out.
fn is_settled(app: &App, object: &ListedObject) -> bool {
    object.modified <= app.clock.before(2 * app.config.workers.lease)
}

/// Returns why no orphan is touched when there are implausibly many: the database is then probably the wrong one, or an
/// old one.
fn refusal(audit: &Audit<'_>, count: u64, total: u64) -> Option<String> {
    let is_many = count > FEW_ORPHANS && count.saturating_mul(100) > total;
    let is_forced = audit
        .options
        .force_orphans
        .is_some_and(|most| count <= most);
    (is_many && !is_forced).then(|| {
        format!(
            "{count} of {total} objects have no row, so this may be another or an older database than theirs; if it is \
             not, repeat it with --force-orphans {count}"
        )
    })
}

async fn object_without_row(
    audit: &mut Audit<'_>,
    object: &ListedObject,
    refusal: Option<&str>,
) -> Result<(), AuditError> {
    let app = audit.app;
    let repair = match (audit.options.repair, object.key.parse::<StorageKey>()) {
        (false, _) => RepairOutcome::NotRequested,
        (true, _) if refusal.is_some() => {
            RepairOutcome::NotRepaired(refusal.unwrap_or_default().to_owned())
        }
        (true, Err(_)) => {
            RepairOutcome::NotRepaired("Landfall writes no objects with such names".to_owned())
        }
        (true, Ok(_)) if !is_settled(app, object) => RepairOutcome::NotRepaired(
            "it is too recent: its writer may still be running".to_owned(),
        ),
        (true, Ok(key)) => match remove_or_set_aside(app, &key).await {
            Ok(Some(done)) => RepairOutcome::Done(done),
            // A file has acquired the key in the meantime.
            Ok(None) => return Ok(()),
            Err(error) => RepairOutcome::NotRepaired(chain(&error)),
        },
    };
    let violation = Violation::new(Invariant::I5, &object.key, "no row names the object");
    audit.found(violation, repair).await?;
    Ok(())
}

async fn remove_or_set_aside(
    app: &App,
    key: &StorageKey,
) -> Result<Option<&'static str>, orphans::OrphanError> {
    let (done, what) = if key.as_str().starts_with(PROBES) {
        (orphans::remove(app, key.as_str()).await?, "it was removed")
    } else {
        (
            orphans::set_aside(app, key).await?,
            "it was set aside, and is removed in seven days",
        )
    };
    Ok(done.then_some(what))
}

async fn staging(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    audit.step_started(AuditStep::Staging, None);
    let app = audit.app;
    let mut pages = app.staging.list();
    while let Some(page) = pages.try_next().await? {
        let checked_more = page.len();
        let suspects = find_leftovers(app, page).await?;
        if !suspects.ended.is_empty() || !suspects.unlisted.is_empty() {
            // Commits precede the removal of what they release by a moment.
            tokio::time::sleep(SETTLE_DELAY).await;
        }
        for staged in find_leftovers(app, suspects.ended).await?.ended {
            if app.staging.len(staged.key).await?.is_some() {
                staging_of_the_ended(audit, staged).await?;
            }
        }
        let old = app.clock.before(app.config.staging.grace);
        for staged in find_leftovers(app, suspects.unlisted).await?.unlisted {
            if staged.modified < old && app.staging.len(staged.key).await?.is_some() {
                unlisted_staging(audit, staged).await?;
            }
        }
        audit.checked_more(checked_more);
    }
    Ok(())
}

async fn staging_of_the_ended(
    audit: &mut Audit<'_>,
    staged: ListedStaging,
) -> Result<(), AuditError> {
    let repair = match audit.options.repair {
        false => RepairOutcome::NotRequested,
        true => match audit.app.staging.delete(&[staged.key]).await {
            Ok(()) => RepairOutcome::Done("the staged bytes were removed"),
            Err(error) => RepairOutcome::NotRepaired(chain(&error)),
        },
    };
    let detail = "the upload or file of these staged bytes has ended";
    let violation = Violation::new(Invariant::I5, staged.key, detail);
    audit.found(violation, repair).await?;
    Ok(())
}

/// Bytes that belong to another, or to a newer, state of the database look the same, so only a later sweep deletes
/// them.
async fn unlisted_staging(audit: &mut Audit<'_>, staged: ListedStaging) -> Result<(), AuditError> {
    let app = audit.app;
    let name = staged.key.to_string();
    let known = candidates::known(&app.db, Place::Staging, std::slice::from_ref(&name)).await?;
    if !known.is_empty() {
        // The sweep has already recorded it.
        return Ok(());
    }
    let repair = match audit.options.repair {
        false => RepairOutcome::NotRequested,
        true => {
            let grace = app.config.staging.grace;
            candidates::record_seen(&app.db, &app.clock, Place::Staging, vec![name], grace).await?;
            RepairOutcome::Done("they were noted, and a sweep removes them after staging.grace")
        }
    };
    let detail = "no row lists these staged bytes";
    let violation = Violation::new(Invariant::I5, staged.key, detail);
    audit.found(violation, repair).await?;
    Ok(())
}

async fn unfinished(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    audit.step_started(AuditStep::UnfinishedWrites, None);
    let app = audit.app;
    let mut pages = app.storage.unfinished();
    while let Some(page) = pages.try_next().await? {
        let checked_more = page.len();
        let (old, settled) = (
            app.clock.before(app.config.staging.grace),
            app.clock.before(2 * app.config.workers.lease),
        );
        // An unfinished upload whose key belongs to no file in progress can only be a dead worker's. A temporary file
        // has no key.
        let mut abandoned = abandoned(app, page, settled).await?;
        abandoned.retain(|one| one.key.is_some() || one.since < old);
        for one in &abandoned {
            left_unfinished(audit, one).await?;
        }
        audit.checked_more(checked_more);
    }
    Ok(())
}

async fn left_unfinished(audit: &mut Audit<'_>, one: &UnfinishedWrite) -> Result<(), AuditError> {
    let (what, done) = match &one.key {
        Some(key) => (
            format!("the multipart upload to {key} belongs to no file in progress"),
            "it was aborted",
        ),
        None => (
            "the temporary file belongs to no file in progress".to_owned(),
            "it was removed",
        ),
    };
    let repair = match audit.options.repair {
        false => RepairOutcome::NotRequested,
        true => match audit.app.storage.remove_unfinished(one).await {
            Ok(()) => RepairOutcome::Done(done),
            Err(error) => RepairOutcome::NotRepaired(chain(&error)),
        },
    };
    let violation = Violation::new(Invariant::I5, &one.id, what);
    audit.found(violation, repair).await?;
    Ok(())
}
