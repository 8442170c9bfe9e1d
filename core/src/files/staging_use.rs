//! Which staged bytes are in use. The sweep and the audit check this before they treat any as leftovers.

use super::{
    StagedItem,
    pieces::parse_column,
    segments::{key, key_of_part, last, start_of_part},
};
use crate::staging::{SegmentWriter, StagingKey};
use entity::{
    FileId, UploadId,
    file::{self, FileStatus},
    part,
    upload::{self, UploadKind, UploadStatus},
    upload_segment,
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QuerySelect,
    sea_query::{Expr, ExprTrait},
};
use std::collections::{HashMap, HashSet};
use uuid::Uuid;

/// Keys looked up per round of queries.
const PAGE: usize = 500;

/// Returns those of the keys that a row lists as still needed, or whose writer may be active.
///
/// All others are leftovers, or belong to a request that has not written its row yet; the caller must wait and check
/// again before deleting them. Bytes move from the rows of an upload to the row of its file. The rows are read in the
/// same order, so bytes that move concurrently are found in one of the two.
///
/// # Errors
/// Database errors.
pub async fn staging_in_use(
    db: &impl ConnectionTrait,
    keys: &[StagingKey],
) -> Result<HashSet<StagingKey>, DbErr> {
    let mut in_use = HashSet::new();
    for page in keys.chunks(PAGE) {
        let owners: HashSet<Uuid> = page.iter().map(StagingKey::owner).collect();
        let uploads = uploads(db, &owners).await?;
        let listed = listed(db, &uploads, page).await?;
        let needed = needed(db, &uploads).await?;
        in_use.extend(named_by_files(db, &owners).await?);
        in_use.extend(
            listed
                .into_iter()
                .filter(|key| needed.contains(&key.owner())),
        );
    }
    in_use.retain(|key| keys.contains(key));
    Ok(in_use)
}

async fn uploads(
    db: &impl ConnectionTrait,
    owners: &HashSet<Uuid>,
) -> Result<HashMap<Uuid, upload::Model>, DbErr> {
    let ids = owners.iter().copied().map(UploadId);
    let rows = upload::Entity::find()
        .filter(upload::Column::Id.is_in(ids))
        .all(db)
        .await?;
    Ok(rows.into_iter().map(|row| (row.id.0, row)).collect())
}

/// Returns the keys that rows of uploads list, or that an active writer may be about to add.
async fn listed(
    db: &impl ConnectionTrait,
    uploads: &HashMap<Uuid, upload::Model>,
    keys: &[StagingKey],
) -> Result<HashSet<StagingKey>, DbErr> {
    let mut listed = HashSet::new();
    let (mut fenced, mut attempts) = (Vec::new(), Vec::new());
    for key in keys {
        let Some(upload) = uploads.get(&key.owner()) else {
            continue;
        };
        match key.writer() {
            // Parts and appends of an earlier version: their names do not tell which bytes are counted.
            None => {
                listed.insert(*key);
            }
            Some(SegmentWriter::Fence(fence)) => {
                let is_last = last(upload).is_some_and(|piece| piece.key == *key);
                if is_last || fence >= upload.fence.unsigned_abs() {
                    listed.insert(*key);
                }
                fenced.push(*key);
            }
            Some(SegmentWriter::Attempt(attempt)) => match upload.kind {
                UploadKind::Parts => attempts.push((upload.id, attempt)),
                _ if upload.fence == 0 => {
                    listed.insert(*key);
                }
                _ => {}
            },
        }
    }
    listed.extend(finished_segments(db, &fenced).await?);
    listed.extend(attempts_at_parts(db, uploads, &attempts).await?);
    Ok(listed)
}

async fn finished_segments(
    db: &impl ConnectionTrait,
    keys: &[StagingKey],
) -> Result<Vec<StagingKey>, DbErr> {
    use upload_segment::{Column, Entity};
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let starts = keys
        .iter()
        .map(|key| i64::try_from(key.start()).unwrap_or(i64::MAX));
    let rows = Entity::find()
        .filter(Column::UploadId.is_in(keys.iter().map(|key| UploadId(key.owner()))))
        .filter(Column::StartByte.is_in(starts))
        .all(db)
        .await?;
    Ok(rows.iter().map(key).collect())
}

async fn attempts_at_parts(
    db: &impl ConnectionTrait,
    uploads: &HashMap<Uuid, upload::Model>,
    attempts: &[(UploadId, Uuid)],
) -> Result<Vec<StagingKey>, DbErr> {
    use part::{Column, Entity};
    if attempts.is_empty() {
        return Ok(Vec::new());
    }
    let at_work = Column::LeaseOwner.is_in(attempts.iter().map(|(_, name)| name.to_string()));
    let rows = Entity::find()
        .filter(Column::UploadId.is_in(attempts.iter().map(|(id, _)| *id)))
        .filter(
            Column::Attempt
                .is_in(attempts.iter().map(|(_, name)| *name))
                .or(at_work),
        )
        .all(db)
        .await?;
    let of_row = |row: part::Model| {
        let upload = uploads.get(&row.upload_id.0)?;
        let attempt = row.attempt.or_else(|| row.lease_owner?.parse().ok())?;
        let start = start_of_part(upload, row.part_number);
        Some(key_of_part(row.upload_id, start, Some(attempt)))
    };
    Ok(rows.into_iter().filter_map(of_row).collect())
}

/// Returns the uploads whose listed bytes are still needed.
async fn needed(
    db: &impl ConnectionTrait,
    uploads: &HashMap<Uuid, upload::Model>,
) -> Result<HashSet<Uuid>, DbErr> {
    let files = uploads.values().map(|upload| upload.file_id);
    let rows: Vec<(FileId, FileStatus, bool)> = file::Entity::find()
        .select_only()
        .columns([file::Column::Id, file::Column::Status])
        .column_as(Expr::col(file::Column::StagingKey).is_not_null(), "waits")
        .filter(file::Column::Id.is_in(files))
        .into_tuple()
        .all(db)
        .await?;
    let files: HashMap<FileId, (FileStatus, bool)> = rows
        .into_iter()
        .map(|(id, status, waits)| (id, (status, waits)))
        .collect();
    let is_needed = |upload: &upload::Model| {
        let own = upload.file_id.0 == upload.id.0;
        match (upload.status, files.get(&upload.file_id)) {
            (UploadStatus::Init | UploadStatus::InProgress, _) => true,
            // The file lists the upload, or one of its segments.
            (_, Some((_, true))) => true,
            // A complete partial upload is waiting for the final upload, or for the other partial uploads.
            (UploadStatus::Complete, Some((FileStatus::Uploading, _))) => true,
            (UploadStatus::Complete, None) => own && upload.kind == UploadKind::Partial,
            _ => false,
        }
    };
    let needed = uploads.iter().filter(|(_, upload)| is_needed(upload));
    Ok(needed.map(|(id, _)| *id).collect())
}

/// Returns the segments that the owners' files list themselves.
async fn named_by_files(
    db: &impl ConnectionTrait,
    owners: &HashSet<Uuid>,
) -> Result<Vec<StagingKey>, DbErr> {
    let columns: Vec<Option<String>> = file::Entity::find()
        .select_only()
        .column(file::Column::StagingKey)
        .filter(file::Column::Id.is_in(owners.iter().copied().map(FileId)))
        .filter(file::Column::StagingKey.is_not_null())
        .into_tuple()
        .all(db)
        .await?;
    let items = columns
        .iter()
        .flatten()
        .filter_map(|column| parse_column(column));
    let keys = items.flatten().filter_map(|item| match item {
        StagedItem::Piece(piece) => Some(piece.key),
        StagedItem::Upload { .. } => None,
    });
    Ok(keys.collect())
}
