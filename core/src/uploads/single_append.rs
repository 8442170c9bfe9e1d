//! The fast path for small uploads with a single append, the most common kind: counted without a write lease.
//!
//! The bytes are buffered in memory, staged as a segment of this attempt, and counted by a compare-and-set that
//! succeeds only if no writer has ever acquired the upload. This saves a commit. A crash before the count leaves a
//! segment that no row lists, which the sweep removes.

use super::{
    Append, UploadBytes, UploadError,
    acquire::is_next,
    append::ON_DISK,
    batched_writes,
    complete::{self, ReceivedFile},
    query::get,
    writers::{ActiveWriter, CountRequests},
};
use crate::{
    app::App,
    digest::Sha256Digest,
    failpoint,
    files::OwnerScope,
    staging::{Piece, SegmentWriter, StagingError, StagingKey, WriteOptions, hashes::Hasher},
};
use bytes::Bytes;
use entity::{
    UploadId,
    upload::{Model, UploadKind},
};
use futures::{StreamExt, stream};
use sha2::{Digest, Sha256};
use std::{convert::Infallible, error::Error, time::Duration};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

/// Maximum number of bytes buffered for one request.
const MAX_SINGLE_APPEND_LEN: u64 = 128 * 1024;

/// How long the body may take. Bytes of a slower body are counted as they arrive.
const GATHER_TIMEOUT: Duration = Duration::from_millis(500);

/// The result of the fast path.
pub(super) enum SingleAppend {
    Done(Box<Model>),
    /// The fast path does not apply: append as usual. The stream returns the whole body.
    Not(UploadBytes),
}

/// Appends a body that contains the whole upload, if it is small, arrives at once, and no writer was active before.
///
/// # Errors
/// [`UploadError::ChecksumMismatch`], and errors of staging and the database; nothing is changed then.
pub(super) async fn append(
    app: &App,
    scope: &OwnerScope,
    id: UploadId,
    request: &Append,
    body: UploadBytes,
    at_work: &ActiveWriter,
) -> Result<SingleAppend, UploadError> {
    let Some(size) = request.content_length.filter(|size| fits(request, *size)) else {
        return Ok(SingleAppend::Not(body));
    };
    let begun = app.uploads.take_recent(id);
    let upload = match begun.filter(|begun| scope.covers(begun.owner.as_deref())) {
        Some(begun) => begun,
        None => get(app.db.read(), scope, id).await?,
    };
    let whole = upload.total_size_bytes.map(i64::unsigned_abs) == Some(size);
    let untouched = may_be_whole(&upload) && upload.fence == 0;
    if !whole || !untouched || !is_next(app, &upload, request)? {
        return Ok(SingleAppend::Not(body));
    }
    let (pieces, body) = match buffer_body(body, size, &at_work.requests()).await {
        Ok(gathered) => gathered,
        Err(body) => return Ok(SingleAppend::Not(body)),
    };
    let sha256 = check(request, &pieces)?;
    let attempt = SegmentWriter::Attempt(Uuid::now_v7());
    let key = StagingKey::segment(id.0, 0, attempt);
    stage(app, key, &pieces).await?;
    failpoint!("uploads.synced");
    let ended = batched_writes::CompletedUpload {
        upload: id,
        whole: ReceivedFile {
            file: upload.file_id,
            items: vec![Piece::new(key, size).into()],
            sha256: Some(sha256),
        },
        expires_at: app.clock.after(app.config.uploads.session_ttl),
    };
    let Some((upload, staged)) = app.uploads.end(ended).await? else {
        // Another writer was faster. The regular append determines who may continue.
        discard(app, key).await;
        return Ok(SingleAppend::Not(again(pieces, body)));
    };
    complete::push(app, staged).await;
    failpoint!("uploads.counted");
    Ok(SingleAppend::Done(Box::new(upload)))
}

async fn stage(app: &App, key: StagingKey, pieces: &[Bytes]) -> Result<(), StagingError> {
    let body = stream::iter(pieces.iter().cloned().map(Ok::<_, Infallible>));
    app.staging
        .write(key, body, WriteOptions::default())
        .await
        .map(drop)
}

/// Deletes a segment that no row lists.
async fn discard(app: &App, key: StagingKey) {
    if let Err(error) = app.staging.delete(&[key]).await {
        tracing::debug!(%key, %error, "a segment is left to the sweep");
    }
}

/// Whether an upload can be completed by one small append.
pub(super) fn may_be_whole(upload: &Model) -> bool {
    let total = upload.total_size_bytes.map(i64::unsigned_abs);
    upload.kind == UploadKind::Append
        && total.is_some_and(|total| (1..=MAX_SINGLE_APPEND_LEN).contains(&total))
}

fn fits(request: &Append, size: u64) -> bool {
    (1..=MAX_SINGLE_APPEND_LEN).contains(&size) && request.offset == 0 && request.length.is_none()
}

type BoxError = Box<dyn Error + Send + Sync>;

/// Returns the whole body and what follows it; or the unchanged body when it pauses, is slow, is interrupted or has
/// another size, or when another request asks for its bytes to be counted.
async fn buffer_body(
    mut body: UploadBytes,
    size: u64,
    requests: &CountRequests,
) -> Result<(Vec<Bytes>, UploadBytes), UploadBytes> {
    let (mut pieces, mut came) = (Vec::new(), 0);
    let end = Instant::now() + GATHER_TIMEOUT;
    while came < size {
        let until = end.min(Instant::now() + ON_DISK.pause);
        let next = tokio::select! {
            biased;
            next = timeout_at(until, body.next()) => next,
            () = requests.requested() => {
                requests.pass_on();
                return Err(again(pieces, body));
            }
        };
        match next {
            Ok(Some(Ok(bytes))) => {
                came += bytes.len() as u64;
                pieces.push(bytes);
            }
            Ok(Some(Err(error))) => {
                let broken = stream::iter([Err::<Bytes, BoxError>(error)]).boxed();
                return Err(again(pieces, broken));
            }
            Ok(None) | Err(_) => return Err(again(pieces, body)),
        }
    }
    match came == size {
        true => Ok((pieces, body)),
        false => Err(again(pieces, body)),
    }
}

fn again(pieces: Vec<Bytes>, rest: UploadBytes) -> UploadBytes {
    stream::iter(pieces.into_iter().map(Ok)).chain(rest).boxed()
}

/// Returns the digest, after verifying the checksum.
fn check(request: &Append, pieces: &[Bytes]) -> Result<Sha256Digest, UploadError> {
    let algorithm = request.checksum.as_ref().map(|sum| sum.algorithm);
    let mut hasher = Hasher::new(algorithm.as_slice(), None);
    let mut sha256 = Sha256::new();
    for piece in pieces {
        hasher.update(piece);
        sha256.update(piece);
    }
    let found = hasher.finish();
    match &request.checksum {
        Some(sum) if found.get(sum.algorithm) != Some(sum.digest.as_slice()) => {
            Err(UploadError::ChecksumMismatch)
        }
        _ => Ok(Sha256Digest::from_hasher(sha256)),
    }
}
