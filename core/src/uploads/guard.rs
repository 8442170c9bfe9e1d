//! Inspects the first bytes of an upload's file as they are received, whichever request sends them, so that a file of a
//! disallowed type is rejected before it is acknowledged. Concatenated uploads are inspected when they are finalized,
//! because partial uploads declare no type.

use super::{UploadBytes, UploadError, query::get};
use crate::{
    app::App,
    files::{self, OwnerScope, segments},
    media_policy::{self, ContentGuard, DeclaredContent},
    transfer,
};
use entity::{UploadId, upload::UploadKind};
use futures::StreamExt;

/// The position of a body within its upload.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyRange {
    /// Offset of the first byte.
    pub(super) offset: u64,
    /// The upload's length in bytes, if this request sets it.
    pub(super) length: Option<u64>,
    /// Whether the upload ends with the body.
    pub(super) last: bool,
}

/// Returns the body, with inspection if it contains first bytes and their type matters.
///
/// # Errors
/// As [`get`], and errors of staging where earlier bytes must be read.
pub(super) async fn guarded(
    app: &App,
    scope: &OwnerScope,
    id: UploadId,
    bytes: BodyRange,
    body: UploadBytes,
) -> Result<UploadBytes, UploadError> {
    let lists = &app.config.uploads;
    if bytes.offset >= media_policy::MAX_HEAD_LEN || !media_policy::needs_bytes(lists) {
        return Ok(body);
    }
    let db = app.db.read();
    let upload = get(db, scope, id).await?;
    let received = upload.bytes_received.unsigned_abs();
    let is_of_a_file = matches!(upload.kind, UploadKind::Parts | UploadKind::Append);
    // A wrong offset is rejected elsewhere.
    if !is_of_a_file || (upload.kind == UploadKind::Append && bytes.offset != received) {
        return Ok(body);
    }
    let Some(file) = files::get(db, &OwnerScope::All, upload.file_id).await? else {
        return Ok(body);
    };
    let before = match bytes.offset {
        0 => Vec::new(),
        offset => {
            let pieces = segments::of_uploads(db, &[id]).await?.remove(&id);
            let pieces = pieces.unwrap_or_default();
            let head = transfer::head(&app.staging, &pieces, offset).await;
            head.map_err(|error| UploadError::Unreadable(Box::new(error)))?
        }
    };
    let declared = DeclaredContent {
        name: file.original_filename,
        content_type: file.content_type,
    };
    let total = upload
        .total_size_bytes
        .map(i64::unsigned_abs)
        .or(bytes.length);
    let guard = ContentGuard::new(lists, declared, total, bytes.last, before);
    Ok(guard.watch(body).boxed())
}
