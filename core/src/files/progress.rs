//! The progress of files until every endpoint was notified, for the clients that uploaded them.

use super::OwnerScope;
use crate::outbox::EventType;
use entity::{
    FileId,
    file::{self, FileStatus},
    outbox_event::{self, EventStatus},
};
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QuerySelect};
use std::collections::HashMap;
use uuid::Uuid;

/// The progress of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileProgress {
    pub id: FileId,
    pub status: FileStatus,
    pub error_code: Option<String>,
    /// The status of `file.stored` and the number of endpoints that have not been notified yet; `None` before the file
    /// is stored.
    pub announced: Option<(EventStatus, i32)>,
}

/// Returns the progress of those files that the scope covers. Unknown ids are skipped.
///
/// # Errors
/// Database errors.
pub async fn progress(
    db: &impl ConnectionTrait,
    scope: &OwnerScope,
    ids: &[FileId],
) -> Result<Vec<FileProgress>, DbErr> {
    let mut files = file::Entity::find()
        .select_only()
        .column(file::Column::Id)
        .column(file::Column::Status)
        .column(file::Column::ErrorCode)
        .filter(file::Column::Id.is_in(ids.iter().copied()));
    if let OwnerScope::Owner(owner) = scope {
        files = files.filter(file::Column::Owner.eq(owner));
    }
    let files: Vec<(FileId, FileStatus, Option<String>)> = files.into_tuple().all(db).await?;
    let about = files.iter().map(|(id, ..)| id.0);
    let events: Vec<(Uuid, EventStatus, i32)> = outbox_event::Entity::find()
        .select_only()
        .column(outbox_event::Column::AggregateId)
        .column(outbox_event::Column::Status)
        .column(outbox_event::Column::PendingDeliveries)
        .filter(outbox_event::Column::AggregateId.is_in(about))
        .filter(outbox_event::Column::EventType.eq(EventType::FileStored.as_str()))
        .into_tuple()
        .all(db)
        .await?;
    let events: HashMap<Uuid, (EventStatus, i32)> = events
        .into_iter()
        .map(|(id, status, waiting)| (id, (status, waiting)))
        .collect();
    let each = files
        .into_iter()
        .map(|(id, status, error_code)| FileProgress {
            id,
            status,
            error_code,
            announced: events.get(&id.0).copied(),
        });
    Ok(each.collect())
}
