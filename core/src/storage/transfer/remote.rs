//! From staging into a bucket: one PUT up to 16 MiB, above it a multipart upload with a few parts in flight.

use super::{
    Landing, TransferError, inside, large,
    parts::{Part, Parts},
};
use crate::{
    digest::Sha256Digest,
    staging::{Place, Staging},
    storage::{
        StorageError,
        s3::{Multipart, NewObject, S3Storage},
    },
};
use aws_sdk_s3::types::CompletedPart;
use bytes::Bytes;
use futures::{StreamExt, stream::FuturesUnordered};
use std::sync::Arc;

const MIB: u64 = 1024 * 1024;
/// The largest object that is sent in one request, in bytes.
const SINGLE: u64 = 16 * MIB;
/// The usual part, in bytes.
const PART: u64 = 8 * MIB;
/// The largest part that is held in memory, in bytes; larger ones pass through.
const LARGEST_HELD: u64 = 16 * MIB;
/// Parts of one transfer in memory at once, in bytes: those in flight, one that waits, one being read.
const MEMORY: u64 = 48 * MIB;
/// The most parts an object can have. Source: "Amazon S3 multipart upload limits".
pub(super) const MOST_PARTS: u64 = 10_000;

/// Sends the pieces; answers the digest of them all.
pub(super) async fn send(
    staging: &Staging,
    to: &Arc<S3Storage>,
    landing: &Landing<'_>,
) -> Result<Sha256Digest, TransferError> {
    let size = landing.size();
    let origin = landing
        .pieces
        .first()
        .map_or_else(String::new, |piece| piece.key.to_string());
    let object = NewObject {
        key: landing.key.as_str(),
        content_type: landing.content_type,
        origin: &origin,
        size,
        sha256: None,
        overwrite: landing.overwrite,
        sole_writer: false,
    };
    if size == 0 {
        require_segment(staging, landing).await?;
    }
    if size <= SINGLE {
        let _memory = to.memory().hold_small(size).await;
        return send_single(staging, to, landing, object).await;
    }
    // Enough for a part that is read, one that waits and one in flight; more in flight are granted one by one.
    let _memory = to
        .memory()
        .hold_large(3 * part_size(size).min(LARGEST_HELD))
        .await;
    let from = match &staging.place {
        Place::S3(from) if inside::is_fit(from, landing).await? => Some(from),
        _ => None,
    };
    let mut upload = Multipart::begin(to, &object).await?;
    let copied = match from {
        Some(from) => Some(inside::copy(staging, from, landing, &upload).await),
        None => None,
    };
    let sent = match copied {
        Some(Err(TransferError::Storage(StorageError::NotAsSent(problem)))) => {
            tracing::warn!(%problem, "the store's copies are not as they should be; the bytes are read and sent");
            // Copies that are still under way must not take the places of the parts.
            upload.abort().await;
            upload = Multipart::begin(to, &object).await?;
            read_and_send(staging, to, landing, &upload).await
        }
        Some(copied) => copied,
        None => read_and_send(staging, to, landing, &upload).await,
    };
    match sent {
        Ok((digest, parts)) => {
            let object = NewObject {
                sha256: Some(digest),
                ..object
            };
            upload.complete(&object, parts).await?;
            Ok(digest)
        }
        Err(error) => {
            upload.abort().await;
            Err(error)
        }
    }
}

/// Where there are no bytes, nothing is read that could be missing.
async fn require_segment(staging: &Staging, landing: &Landing<'_>) -> Result<(), TransferError> {
    for piece in landing.pieces {
        if staging.len(piece.key).await?.is_none() {
            return Err(TransferError::StagingGone);
        }
    }
    Ok(())
}

async fn send_single(
    staging: &Staging,
    to: &S3Storage,
    landing: &Landing<'_>,
    object: NewObject<'_>,
) -> Result<Sha256Digest, TransferError> {
    let mut parts = Parts::read(staging, landing.pieces, SINGLE, false);
    let bytes = parts
        .next()
        .await
        .map_or_else(Bytes::new, |part| part.bytes);
    let digest = parts.finish().await?;
    landing.check(digest)?;
    let object = NewObject {
        sha256: Some(digest),
        ..object
    };
    to.put(&object, bytes).await?;
    Ok(digest)
}

/// The size of all parts but the last: few enough parts, and nothing finer than a MiB, as some stores want.
fn part_size(size: u64) -> u64 {
    PART.max(size.div_ceil(MOST_PARTS).next_multiple_of(MIB))
}

async fn read_and_send(
    staging: &Staging,
    to: &Arc<S3Storage>,
    landing: &Landing<'_>,
    upload: &Multipart,
) -> Result<(Sha256Digest, Vec<CompletedPart>), TransferError> {
    match part_size(landing.size()) {
        large if large > LARGEST_HELD => large::send(staging, landing, upload, large).await,
        usual => send_parts(staging, to, landing, upload, usual).await,
    }
}

async fn send_parts(
    staging: &Staging,
    to: &Arc<S3Storage>,
    landing: &Landing<'_>,
    upload: &Multipart,
    part_size: u64,
) -> Result<(Sha256Digest, Vec<CompletedPart>), TransferError> {
    let in_flight = usize::try_from(MEMORY / part_size)
        .unwrap_or(1)
        .saturating_sub(2)
        .max(1);
    let mut parts = Parts::read(staging, landing.pieces, part_size, to.signs_parts());
    let mut sending = FuturesUnordered::new();
    let memory = to.memory();
    let mut sent = Vec::new();
    let mut number = 0;
    let mut reading = true;
    while reading || !sending.is_empty() {
        // The first is part of what the transfer holds anyway.
        let mut more = match sending.len() {
            0 => Some(None),
            some if some < in_flight => memory.try_hold_large(part_size).map(Some),
            _ => None,
        };
        tokio::select! {
            part = parts.next(), if reading && more.is_some() => match part {
                Some(Part { bytes, digest }) => {
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
    landing.check(digest)?;
    Ok((digest, sent))
}
