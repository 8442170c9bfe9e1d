//! Small uploads whose one append brings all of them, as most do: counted without being taken first.
//!
//! The bytes are gathered in memory, staged under a name nobody knows, and linked to the upload's own, which succeeds
//! only while nothing is there. So a writer who has taken the upload in the meantime never finds bytes that still
//! change, and the count, a compare-and-set on the fence, tells which of two was first. It saves a commit.

use super::{
    Append, Bytestream, UploadError,
    append::ON_DISK,
    finish::{self, Whole},
    hold::is_next,
    ledger,
    query::get,
};
use crate::{
    context::Landfall,
    digest::Sha256Digest,
    failpoint,
    files::Scope,
    staging::{StagingKey, hashes::Hasher},
    storage::transfer::Piece,
};
use bytes::Bytes;
use entity::{
    UploadId,
    upload::{Model, UploadKind},
};
use futures::{StreamExt, stream};
use sha2::{Digest, Sha256};
use std::error::Error;
use tokio::time::Instant;

/// What is gathered in memory for one request, in bytes.
const MOST: u64 = 128 * 1024;

/// What became of a body.
pub(super) enum AtOnce {
    Done(Box<Model>),
    /// Not that simple: to be appended as any other. All of the body is still to come out of it.
    Not(Bytestream),
}

/// Appends a body that is all of its upload, if it is small, comes at once, and nobody else is there.
///
/// # Errors
/// [`UploadError::ChecksumMismatch`], and what staging and the database answer; nothing is changed then.
pub(super) async fn append(
    landfall: &Landfall,
    scope: &Scope,
    id: UploadId,
    request: &Append,
    body: Bytestream,
) -> Result<AtOnce, UploadError> {
    let Some(size) = request.content_length.filter(|size| fits(request, *size)) else {
        return Ok(AtOnce::Not(body));
    };
    // A bucket has no links; an append to it is an object of its own all the same.
    if landfall
        .staging
        .local_path(StagingKey::unsegmented(id.0))
        .is_none()
    {
        return Ok(AtOnce::Not(body));
    }
    let begun = landfall.uploads.take_begun(id);
    let upload = match begun.filter(|begun| scope.covers(begun.owner.as_deref())) {
        Some(begun) => begun,
        None => get(landfall.db.read(), scope, id).await?,
    };
    let whole = upload.total_size_bytes.map(i64::unsigned_abs) == Some(size);
    let untouched = may_be_whole(&upload) && upload.fence == 0;
    if !whole || !untouched || !is_next(landfall, &upload, request)? {
        return Ok(AtOnce::Not(body));
    }
    let (pieces, body) = match gather(body, size).await {
        Ok(gathered) => gathered,
        Err(body) => return Ok(AtOnce::Not(body)),
    };
    let sha256 = check(request, &pieces)?;
    let key = StagingKey::unsegmented(id.0);
    if !landfall.staging.place(key, pieces.clone()).await? {
        return Ok(AtOnce::Not(again(pieces, body)));
    }
    failpoint!("uploads.synced");
    let ended = ledger::Ended {
        upload: id,
        whole: Whole {
            file: upload.file_id,
            pieces: vec![Piece { key, size }],
            sha256: Some(sha256),
        },
        expires_at: landfall.clock.after(landfall.config.uploads.session_ttl),
    };
    let Some((upload, staged)) = landfall.uploads.end(ended).await? else {
        // Somebody was faster. Who may go on now is found out as for any other.
        return Ok(AtOnce::Not(again(pieces, body)));
    };
    finish::push(landfall, staged).await;
    failpoint!("uploads.counted");
    Ok(AtOnce::Done(Box::new(upload)))
}

/// True of uploads that one small append can bring whole.
pub(super) fn may_be_whole(upload: &Model) -> bool {
    let total = upload.total_size_bytes.map(i64::unsigned_abs);
    upload.kind == UploadKind::Append && total.is_some_and(|total| (1..=MOST).contains(&total))
}

fn fits(request: &Append, size: u64) -> bool {
    (1..=MOST).contains(&size) && request.offset == 0 && request.length.is_none()
}

type Problem = Box<dyn Error + Send + Sync>;

/// The whole body, and what would be left of it; or all of it as it was, when it pauses, breaks off or has another size.
/// What trickles in is not kept here for longer than a pause may take either: nobody could go on where it has come to.
async fn gather(mut body: Bytestream, size: u64) -> Result<(Vec<Bytes>, Bytestream), Bytestream> {
    let (mut pieces, mut came) = (Vec::new(), 0);
    let until = Instant::now() + ON_DISK.pause;
    while came < size {
        match tokio::time::timeout_at(until, body.next()).await {
            Ok(Some(Ok(bytes))) => {
                came += bytes.len() as u64;
                pieces.push(bytes);
            }
            Ok(Some(Err(error))) => {
                let broken = stream::iter([Err::<Bytes, Problem>(error)]).boxed();
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

fn again(pieces: Vec<Bytes>, rest: Bytestream) -> Bytestream {
    stream::iter(pieces.into_iter().map(Ok)).chain(rest).boxed()
}

/// The digest, once the checksum is found to be right.
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
