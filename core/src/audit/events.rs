//! I2: stored files and `file.stored` events correspond one to one.
//!
//! Delivered events are deleted after `outbox.retention`, so a file that was stored longer ago than that may have none.

use super::{
    Audit, AuditError, AuditStep, Invariant, PAGE, RepairOutcome, Violation, chain,
    stored_files::{AuditedFile, reload_stored},
};
use crate::{
    app::App,
    enqueue::DueDelivery,
    outbox::{self, EventType, FileStored, NewEvent, WriteError},
    storage::{InvalidStorageKey, StorageError, StorageKey},
};
use entity::{
    EventId, FileId, Timestamp,
    file::{self, FileStatus},
    outbox_event::{Column, Entity},
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    sea_query::LockType,
};
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};
use uuid::Uuid;

/// Safety margin before an event's retention ends, because the sweep of another process may be slightly ahead.
const MARGIN: Duration = Duration::from_secs(60);

fn key_of(file: impl std::fmt::Display) -> String {
    format!("UploadFile:{file}")
}

/// Reports the files of a page that have no event although it cannot have been deleted yet.
pub(super) async fn missing(audit: &mut Audit<'_>, page: &[AuditedFile]) -> Result<(), AuditError> {
    let app = audit.app;
    let retention = app.config.outbox.retention;
    let since = app.clock.before(retention.saturating_sub(MARGIN));
    let recent: Vec<FileId> = page
        .iter()
        .filter(|file| file.stored_at.is_some_and(|at| at > since))
        .map(|file| file.id)
        .collect();
    for id in without_event(app, &recent).await? {
        // Check again, the row first: a file that is stored by now got its event in the same commit.
        if reload_stored(app, id).await?.is_none() || without_event(app, &[id]).await?.is_empty() {
            continue;
        }
        let repair = match audit.options.repair {
            false => RepairOutcome::NotRequested,
            true => match announce(app, id).await {
                Ok(true) => RepairOutcome::Done("the event was written"),
                // Deleted, or announced by another process, in the meantime.
                Ok(false) => continue,
                Err(error) => RepairOutcome::NotRepaired(chain(&error)),
            },
        };
        let violation = Violation::new(
            Invariant::I2,
            id,
            "the stored file has no file.stored event",
        );
        audit.found(violation, repair).await?;
    }
    Ok(())
}

async fn without_event(app: &App, files: &[FileId]) -> Result<Vec<FileId>, DbErr> {
    if files.is_empty() {
        return Ok(Vec::new());
    }
    let found: Vec<String> = Entity::find()
        .select_only()
        .column(Column::IdempotencyKey)
        .filter(Column::EventType.eq(EventType::FileStored.as_str()))
        .filter(Column::IdempotencyKey.is_in(files.iter().map(key_of)))
        .into_tuple()
        .all(app.db.read())
        .await?;
    let found: HashSet<String> = found.into_iter().collect();
    let missing = files.iter().filter(|id| !found.contains(&key_of(id)));
    Ok(missing.copied().collect())
}

#[derive(Debug, thiserror::Error)]
enum AnnounceError {
    #[error("no URL can be made for the object")]
    Url(#[from] StorageError),
    #[error("the row has an invalid storage key")]
    Key(#[from] InvalidStorageKey),
    #[error("the event could not be written")]
    Write(#[from] WriteError),
    #[error("the row could not be read")]
    Database(#[from] DbErr),
}

/// Writes the event that finalize would have written, in a transaction in which the file is still stored. Returns false
/// when the file is no longer stored or the event exists.
async fn announce(app: &App, id: FileId) -> Result<bool, AnnounceError> {
    let row = file::Entity::find_by_id(id).one(app.db.read()).await?;
    let Some(key) = row.and_then(|row| row.storage_key) else {
        return Ok(false);
    };
    let url = app.url_of(id, &key.parse::<StorageKey>()?).await?;
    let now = app.clock.now();
    let written = app
        .db
        .write(move |transaction| Box::pin(write(transaction, id, url, now)))
        .await;
    match written {
        Ok(Some(due)) => {
            app.dispatch.deliver(&due).await;
            Ok(true)
        }
        Ok(None) | Err(WriteError::Doubled { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn write(
    transaction: &impl ConnectionTrait,
    id: FileId,
    url: String,
    now: Timestamp,
) -> Result<Option<Vec<DueDelivery>>, WriteError> {
    let row = file::Entity::find_by_id(id)
        .filter(file::Column::Status.eq(FileStatus::Stored))
        .lock(LockType::NoKeyUpdate)
        .one(transaction)
        .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let Some(sha256) = row.sha256.as_deref().and_then(|text| text.parse().ok()) else {
        return Ok(None);
    };
    let event = NewEvent::file_stored(FileStored::from_model(&row, sha256, url), &row);
    Ok(Some(outbox::write(transaction, now, event).await?.due))
}

/// The columns of an event that the audit needs.
type AuditedEvent = (EventId, Uuid, String);

/// Reports events without a corresponding stored file.
pub(super) async fn check(audit: &mut Audit<'_>) -> Result<(), AuditError> {
    audit.step_started(AuditStep::Events, None);
    let app = audit.app;
    let mut after = String::new();
    loop {
        // In key order, which the unique index on type and key provides.
        let page: Vec<AuditedEvent> = Entity::find()
            .select_only()
            .columns([Column::Id, Column::AggregateId, Column::IdempotencyKey])
            .filter(Column::EventType.eq(EventType::FileStored.as_str()))
            .filter(Column::IdempotencyKey.gt(after))
            .filter(Column::IdempotencyKey.lte(key_of(audit.until)))
            .order_by_asc(Column::IdempotencyKey)
            .limit(PAGE)
            .into_tuple()
            .all(app.db.read())
            .await?;
        let Some((_, _, last)) = page.last() else {
            return Ok(());
        };
        after = last.clone();
        let behind = statuses(app, page.iter().map(|(_, file, _)| *file)).await?;
        for (event, file, key) in &page {
            let status = behind.get(&FileId(*file)).copied();
            let detail = match status {
                _ if *key != key_of(file) => "its key is not that of its file",
                Some(FileStatus::Stored | FileStatus::Deleted) => continue,
                Some(_) => "it announces a file that is not stored",
                None => "it announces a file that does not exist",
            };
            // The file's row was committed together with the event, so only the event can be gone by now.
            let gone = Entity::find_by_id(*event).one(app.db.read()).await?;
            if gone.is_none() {
                continue;
            }
            let repair = match (audit.options.repair, status) {
                (false, _) => RepairOutcome::NotRequested,
                (true, None) => match forget(app, *event).await {
                    Ok(()) => RepairOutcome::Done("the event was deleted"),
                    Err(error) => RepairOutcome::NotRepaired(chain(&error)),
                },
                (true, Some(_)) => {
                    RepairOutcome::NotRepaired("receivers may have acted on it".to_owned())
                }
            };
            let violation = Violation::new(Invariant::I2, event, detail);
            audit.found(violation, repair).await?;
        }
        audit.checked_more(page.len());
    }
}

async fn statuses(
    app: &App,
    files: impl Iterator<Item = Uuid>,
) -> Result<HashMap<FileId, FileStatus>, DbErr> {
    let rows: Vec<(FileId, FileStatus)> = file::Entity::find()
        .select_only()
        .columns([file::Column::Id, file::Column::Status])
        .filter(file::Column::Id.is_in(files.map(FileId)))
        .into_tuple()
        .all(app.db.read())
        .await?;
    Ok(rows.into_iter().collect())
}

/// Deletes an event with its deliveries and attempts, because the file it announces does not exist.
async fn forget(app: &App, id: EventId) -> Result<(), DbErr> {
    app.db
        .write(move |transaction| {
            Box::pin(async move { Entity::delete_by_id(id).exec(transaction).await.map(drop) })
        })
        .await
}
