//! Transfers within a bucket: the store copies the bytes itself, while they are read once to be hashed, unless they
//! were hashed when received. The copies are compared with the staged objects by the store's own checksums.
//!
//! Possible when the staged objects can be the parts of an object: all of the same size except the last.

use super::{TransferError, TransferRequest, part_reader::PartReader, s3_upload::MAX_PARTS};
use crate::{
    digest::Sha256Digest,
    staging::{
        Staging,
        s3::{PieceObjects, S3Staging},
    },
    storage::s3::{MIN_PART_SIZE, MultipartUpload},
};
use aws_sdk_s3::types::CompletedPart;
use futures::{StreamExt, stream::FuturesUnordered};

/// Maximum number of concurrent copies.
const MAX_CONCURRENT_COPIES: usize = 8;
/// How many bytes are read at a time for hashing.
const READ_SIZE: u64 = 8 * 1024 * 1024;

/// Whether every object of the pieces can be a part.
///
/// # Errors
/// If one does not exist.
pub(super) async fn can_copy(
    from: &S3Staging,
    request: &TransferRequest<'_>,
) -> Result<bool, TransferError> {
    let (mut parts, mut size) = (0, None);
    let mut ended = false;
    let mut objects = PieceObjects::new(&from.store, request.pieces);
    while let Some((_, range)) = objects.next().await? {
        parts += 1;
        let counted = range.end - range.start;
        // A part that is smaller, or too small, must be the last.
        let first = *size.get_or_insert(counted);
        if ended || counted > first || parts > MAX_PARTS {
            objects.require_all().await?;
            return Ok(false);
        }
        ended = counted < first || counted < MIN_PART_SIZE;
    }
    Ok(parts > 0)
}

/// Copies all objects into the upload, and reads and hashes them unless the digest is known. The store compared the
/// bytes of each object with their SHA-256 when it received them, and a copy must have the checksum of its source.
pub(super) async fn copy(
    staging: &Staging,
    from: &S3Staging,
    request: &TransferRequest<'_>,
    upload: &MultipartUpload,
) -> Result<(Sha256Digest, Vec<CompletedPart>), TransferError> {
    let hashing = async {
        if let Some(known) = request.trusted() {
            request.check(known)?;
            return Ok(known);
        }
        let mut parts = PartReader::read(staging, request.pieces, READ_SIZE, false);
        while parts.next().await.is_some() {}
        let digest = parts.finish().await?;
        request.check(digest)?;
        Ok(digest)
    };
    let copying = async {
        let mut copying = FuturesUnordered::new();
        let (mut copied, mut number) = (Vec::new(), 0);
        let mut objects = PieceObjects::new(&from.store, request.pieces);
        while let Some((object, range)) = objects.next().await? {
            if copying.len() >= MAX_CONCURRENT_COPIES
                && let Some(done) = copying.next().await
            {
                copied.push(done?);
            }
            number += 1;
            copying.push(async move {
                let is_whole = range.end - range.start == object.size;
                let etag = object.etag.as_deref().filter(|_| is_whole);
                upload.copy(number, &object.name, range, etag).await
            });
        }
        while let Some(done) = copying.next().await {
            copied.push(done?);
        }
        Ok(copied)
    };
    futures::try_join!(hashing, copying)
}
