//! The first bytes of an upload's file are looked at while they come in, whichever request brings them, so that a file of
//! a type that is not taken in is refused before it is acknowledged. What a joined upload is made of is looked at when
//! it is finalized: its partial uploads do not say what they are.

use super::{UploadBytes, UploadError, query::get};
use crate::{
    app::App,
    files::{self, OwnerScope, segments},
    media_policy::{self, ContentGuard, DeclaredContent},
    transfer,
};
use entity::{UploadId, upload::UploadKind};
use futures::StreamExt;

/// Where the bytes of a body lie in their upload.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyRange {
    /// Of the first, in bytes.
    pub(super) offset: u64,
    /// How long the upload becomes by this request, if it did not say before, in bytes.
    pub(super) length: Option<u64>,
    /// The upload ends where the body does.
    pub(super) last: bool,
}

/// The body, looked at if it brings first bytes and they decide anything.
///
/// # Errors
/// As [`get`], and what staging answers where the bytes before were to be read.
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
    // Whoever is elsewhere than the upload is refused for that.
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
