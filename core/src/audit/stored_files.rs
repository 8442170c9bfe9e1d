//! Reading the rows of stored files, a page at a time.

use super::{Audit, PAGE};
use crate::app::App;
use entity::{
    FileId, Timestamp,
    file::{Column, Entity, FileStatus},
};
use sea_orm::{ColumnTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

/// The columns of a stored file that the audit needs.
#[derive(Clone, Debug)]
pub(super) struct AuditedFile {
    pub(super) id: FileId,
    pub(super) size_bytes: i64,
    pub(super) sha256: Option<String>,
    pub(super) storage_key: Option<String>,
    pub(super) stored_at: Option<Timestamp>,
}

/// Returns the next page of stored files, in the order of their ids.
pub(super) async fn page(
    audit: &Audit<'_>,
    after: Option<FileId>,
) -> Result<Vec<AuditedFile>, DbErr> {
    let mut query = Entity::find()
        .filter(Column::Status.eq(FileStatus::Stored))
        .filter(Column::Id.lte(audit.until))
        .order_by_asc(Column::Id)
        .limit(PAGE);
    if let Some(after) = after {
        query = query.filter(Column::Id.gt(after));
    }
    read(audit.app, query).await
}

/// Returns the current row, if the file is still stored.
pub(super) async fn reload_stored(app: &App, id: FileId) -> Result<Option<AuditedFile>, DbErr> {
    let query = Entity::find_by_id(id).filter(Column::Status.eq(FileStatus::Stored));
    Ok(read(app, query).await?.pop())
}

async fn read(app: &App, query: sea_orm::Select<Entity>) -> Result<Vec<AuditedFile>, DbErr> {
    type Row = (
        FileId,
        i64,
        Option<String>,
        Option<String>,
        Option<Timestamp>,
    );
    let rows: Vec<Row> = query
        .select_only()
        .columns([
            Column::Id,
            Column::SizeBytes,
            Column::Sha256,
            Column::StorageKey,
            Column::StoredAt,
        ])
        .into_tuple()
        .all(app.db.read())
        .await?;
    let file = |(id, size_bytes, sha256, storage_key, stored_at)| AuditedFile {
        id,
        size_bytes,
        sha256,
        storage_key,
        stored_at,
    };
    Ok(rows.into_iter().map(file).collect())
}
