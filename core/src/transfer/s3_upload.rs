//! Transfers from staging into a bucket: one PUT up to 16 MiB, above it a multipart upload with a few parts in flight.

use super::{
    TransferError, TransferRequest,
    part_reader::{PartBytes, PartReader},
    s3_copy, s3_streamed,
};
use crate::{
    digest::Sha256Digest,
    staging::{Staging, StagingBackend},
    storage::{
        StorageError,
        s3::{MultipartUpload, NewObject, PutProof, S3Storage},
    },
};
use aws_sdk_s3::types::CompletedPart;
use bytes::Bytes;
use futures::{StreamExt, stream::FuturesUnordered};
use std::sync::Arc;

const MIB: u64 = 1024 * 1024;
/// Maximum size of an object that is sent in a single request, in bytes.
const MAX_SINGLE_PUT: u64 = 16 * MIB;
/// The default part size, in bytes.
const PART_SIZE: u64 = 8 * MIB;
/// Maximum size of a part that is buffered in memory, in bytes; larger parts are streamed.
const MAX_BUFFERED_PART: u64 = 16 * MIB;
/// Maximum memory for the parts of one transfer, in bytes: those in flight, one waiting, one being read.
const MAX_BUFFERED: u64 = 48 * MIB;
/// Maximum number of parts per object. Source: "Amazon S3 multipart upload limits".
pub(super) const MAX_PARTS: u64 = 10_000;

/// Sends the pieces, and returns the digest of all bytes, and whether the store has proved that it has them.
pub(super) async fn send(
    staging: &Staging,
    to: &Arc<S3Storage>,
    request: &TransferRequest<'_>,
) -> Result<(Sha256Digest, PutProof), TransferError> {
    let size = request.size();
    let origin = request.origin();
    let object = NewObject {
        key: request.key.as_str(),
        content_type: request.content_type,
        origin: &origin,
        size,
        sha256: None,
        overwrite: request.overwrite,
        is_staged: false,
    };
    if size == 0 {
        require_segment(staging, request).await?;
    }
    if size <= MAX_SINGLE_PUT {
        let _memory = to.memory().hold_small(size).await;
        return send_single(staging, to, request, object).await;
    }
    // Enough for a part being read, one waiting and one in flight; more in flight are granted one by one.
    let _memory = to
        .memory()
        .hold_large(3 * part_size(size).min(MAX_BUFFERED_PART))
        .await;
    let from = match &staging.backend {
        StagingBackend::S3(from)
            if to.capabilities.part_copy.is_usable()
                && s3_copy::can_copy(from, request).await? =>
        {
            Some(from)
        }
        _ => None,
    };
    let mut upload = MultipartUpload::begin(to, &object).await?;
    let copied = match from {
        Some(from) => Some(s3_copy::copy(staging, from, request, &upload).await),
        None => None,
    };
    let sent = match copied {
        Some(Err(TransferError::Storage(error))) if is_refused_copy(to, &error) => {
            // Copies still in progress must not overwrite the parts.
            upload.abort().await;
            upload = MultipartUpload::begin(to, &object).await?;
            read_and_send(staging, to, request, &upload).await
        }
        Some(copied) => copied,
        None => read_and_send(staging, to, request, &upload).await,
    };
    match sent {
        Ok((digest, parts)) => {
            let object = NewObject {
                sha256: Some(digest),
                ..object
            };
            upload.complete(&object, parts).await?;
            Ok((digest, PutProof::None))
        }
        Err(error) => {
            upload.abort().await;
            Err(error)
        }
    }
}

/// Whether the bytes must be sent because the store cannot copy them, or copies them wrongly.
fn is_refused_copy(to: &S3Storage, error: &StorageError) -> bool {
    let is_refused = match error {
        StorageError::NotAsSent(_) => true,
        error => to.capabilities.learn_from_refused_copy(error),
    };
    if is_refused && to.capabilities.part_copy.is_usable() {
        tracing::warn!(%error, "the store's copies cannot be used; the bytes are read and sent instead");
    }
    is_refused
}

/// Checks that the staged segment exists; for an empty object, no read would reveal that it is missing.
async fn require_segment(
    staging: &Staging,
    request: &TransferRequest<'_>,
) -> Result<(), TransferError> {
    for piece in request.pieces {
        if staging.len(piece.key).await?.is_none() {
            return Err(TransferError::StagingGone);
        }
    }
    Ok(())
}

async fn send_single(
    staging: &Staging,
    to: &S3Storage,
    request: &TransferRequest<'_>,
    object: NewObject<'_>,
) -> Result<(Sha256Digest, PutProof), TransferError> {
    let mut parts = PartReader::read(staging, request.pieces, MAX_SINGLE_PUT, false);
    let bytes = parts
        .next()
        .await
        .map_or_else(Bytes::new, |part| part.bytes);
    let digest = parts.finish().await?;
    request.check(digest)?;
    let object = NewObject {
        sha256: Some(digest),
        ..object
    };
    let proof = to.put_object(&object, bytes).await?;
    Ok((digest, proof))
}

/// Returns the size of all parts but the last: large enough for the maximum number of parts, and a multiple of 1 MiB,
/// as some stores require.
fn part_size(size: u64) -> u64 {
    PART_SIZE.max(size.div_ceil(MAX_PARTS).next_multiple_of(MIB))
}

async fn read_and_send(
    staging: &Staging,
    to: &Arc<S3Storage>,
    request: &TransferRequest<'_>,
    upload: &MultipartUpload,
) -> Result<(Sha256Digest, Vec<CompletedPart>), TransferError> {
    match part_size(request.size()) {
        large if large > MAX_BUFFERED_PART => {
            s3_streamed::send(staging, request, upload, large).await
        }
        usual => send_parts(staging, to, request, upload, usual).await,
    }
}

async fn send_parts(
    staging: &Staging,
    to: &Arc<S3Storage>,
    request: &TransferRequest<'_>,
    upload: &MultipartUpload,
    part_size: u64,
) -> Result<(Sha256Digest, Vec<CompletedPart>), TransferError> {
    let in_flight = usize::try_from(MAX_BUFFERED / part_size)
        .unwrap_or(1)
        .saturating_sub(2)
        .max(1);
    let mut parts = PartReader::read(staging, request.pieces, part_size, to.signs_parts());
    let mut sending = FuturesUnordered::new();
    let memory = to.memory();
    let mut sent = Vec::new();
    let mut number = 0;
    let mut reading = true;
    while reading || !sending.is_empty() {
        // The first part is covered by the transfer's initial grant.
        let mut more = match sending.len() {
            0 => Some(None),
            some if some < in_flight => memory.try_hold_large(part_size).map(Some),
            _ => None,
        };
        tokio::select! {
            part = parts.next(), if reading && more.is_some() => match part {
                Some(PartBytes { bytes, digest }) => {
                    number += 1;
                    let granted = more.take();
                    sending.push(async move {
                        let _granted = granted;
                        upload.send(number, bytes, digest).await
                    });
                }
                None => reading = false,
            },
            Some(done) = sending.next() => sent.push(done?),
        }
    }
    let digest = parts.finish().await?;
    request.check(digest)?;
    Ok((digest, sent))
}
