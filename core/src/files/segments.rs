//! The segments of uploads that hold counted bytes: `uploads` lists the last one, `upload_segments` the ones before it,
//! and `parts` those of multipart sessions.

use crate::staging::{Piece, SegmentWriter, StagingKey};
use entity::{
    UploadId, part,
    upload::{self, UploadKind},
    upload_segment,
};
use sea_orm::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder};
use std::collections::HashMap;

/// Uploads per query.
const PAGE: usize = 500;

/// Returns the segments of each existing upload, in byte order. An upload without bytes has one empty segment once it
/// is complete, and none before.
///
/// # Errors
/// Database errors.
pub(crate) async fn of_uploads(
    db: &impl ConnectionTrait,
    ids: &[UploadId],
) -> Result<HashMap<UploadId, Vec<Piece>>, DbErr> {
    let mut listed = HashMap::with_capacity(ids.len());
    for page in ids.chunks(PAGE) {
        let uploads = upload::Entity::find()
            .filter(upload::Column::Id.is_in(page.iter().copied()))
            .all(db)
            .await?;
        let mut before = finished(db, page).await?;
        for upload in uploads {
            let pieces = match upload.kind {
                UploadKind::Parts => of_parts(db, &upload).await?,
                UploadKind::Final => Vec::new(),
                UploadKind::Append | UploadKind::Partial => {
                    let mut pieces = before.remove(&upload.id).unwrap_or_default();
                    pieces.extend(last(&upload));
                    pieces
                }
            };
            listed.insert(upload.id, pieces);
        }
    }
    Ok(listed)
}

/// The segment of an `upload_segments` row.
pub(super) fn key(row: &upload_segment::Model) -> StagingKey {
    match row.fence {
        Some(fence) => fenced(row.upload_id, row.start_byte, fence),
        None => StagingKey::unsegmented(row.upload_id.0),
    }
}

fn fenced(id: UploadId, start: i64, fence: i64) -> StagingKey {
    let writer = SegmentWriter::Fence(fence.unsigned_abs());
    StagingKey::segment(id.0, start.unsigned_abs(), writer)
}

/// The segment of a counted part. In sessions received by an earlier version, all parts share one file or chain.
pub(super) fn key_of_part(id: UploadId, start: u64, attempt: Option<uuid::Uuid>) -> StagingKey {
    match attempt {
        Some(attempt) => StagingKey::segment(id.0, start, SegmentWriter::Attempt(attempt)),
        None => StagingKey::unsegmented(id.0),
    }
}

/// The segment that was written last; `None` before the first byte was counted.
pub(crate) fn last(upload: &upload::Model) -> Option<Piece> {
    let size = |start: i64| (upload.bytes_received - start).unsigned_abs();
    match (upload.segment_start, upload.segment_fence) {
        (Some(start), Some(fence)) => {
            Some(Piece::new(fenced(upload.id, start, fence), size(start)))
        }
        _ if upload.bytes_received == 0 && upload.status != upload::UploadStatus::Complete => None,
        _ => Some(Piece::new(StagingKey::unsegmented(upload.id.0), size(0))),
    }
}

/// The segments before the last ones.
async fn finished(
    db: &impl ConnectionTrait,
    ids: &[UploadId],
) -> Result<HashMap<UploadId, Vec<Piece>>, DbErr> {
    use upload_segment::{Column, Entity};
    let rows = Entity::find()
        .filter(Column::UploadId.is_in(ids.iter().copied()))
        .order_by_asc(Column::UploadId)
        .order_by_asc(Column::StartByte)
        .all(db)
        .await?;
    let mut finished: HashMap<UploadId, Vec<Piece>> = HashMap::new();
    for row in rows {
        let size = row.length_bytes.unsigned_abs();
        let piece = Piece::new(key(&row), size);
        finished.entry(row.upload_id).or_default().push(piece);
    }
    Ok(finished)
}

async fn of_parts(db: &impl ConnectionTrait, upload: &upload::Model) -> Result<Vec<Piece>, DbErr> {
    use part::{Column, Entity};
    let rows = Entity::find()
        .filter(Column::UploadId.eq(upload.id))
        .filter(Column::Sha256.is_not_null())
        .order_by_asc(Column::PartNumber)
        .all(db)
        .await?;
    let mut pieces: Vec<Piece> = Vec::new();
    for row in rows {
        let size = row.size_bytes.unsigned_abs();
        let start = start_of_part(upload, row.part_number);
        let key = key_of_part(upload.id, start, row.attempt);
        match pieces.last_mut() {
            // In earlier versions, parts share one file or chain, each at its own offset.
            Some(last) if last.key == key && last.range().end == start => last.size += size,
            _ => pieces.push(Piece {
                offset: if row.attempt.is_some() { 0 } else { start },
                ..Piece::new(key, size)
            }),
        }
    }
    Ok(pieces)
}

/// Offset of the part's first byte, in bytes.
pub(super) fn start_of_part(upload: &upload::Model, number: i32) -> u64 {
    let before = u64::try_from(number - 1).unwrap_or(0);
    before * upload.chunk_size_bytes.unwrap_or(0).unsigned_abs()
}
