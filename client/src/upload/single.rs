//! A small file, in one request: hashed first, so that the server can refuse bytes that were damaged on their way.

use super::{
    job::Job,
    wire::{Taken, content_digest, taken},
};
use crate::sha256::Sha256Digest;
use crate::{api::CallError, retry::retrying};
use http::header;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The largest file that is sent in one request, in bytes.
pub(super) const LARGEST: u64 = 16 << 20;

/// The longest metadata beside raw bytes, in bytes of JSON: it stands in the URL, which proxies limit.
pub(super) const METADATA: usize = 2048;

/// What RFC 8187 lets stand in an extended value (`attr-char`); the rest is percent-encoded.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// Sends the file; answers it as the server took it in, and what was sent.
pub(super) async fn send(job: &Job<'_>) -> anyhow::Result<(Taken, Sha256Digest)> {
    let digest = job
        .source
        .hash(0..job.source.size)
        .await
        .map_err(CallError::Local)?;
    let _slot = job.uploads.slot().await;
    let reply = retrying(
        &job.uploads.api,
        |error, pause| job.meter.pausing(error, pause),
        async || {
            job.meter.say("");
            post(job, digest).await
        },
    )
    .await?;
    job.source.require_unchanged()?;
    Ok((taken(reply)?, digest))
}

async fn post(job: &Job<'_>, digest: Sha256Digest) -> Result<String, CallError> {
    let name = utf8_percent_encode(&job.source.name, ENCODED);
    let mut request = job
        .uploads
        .api
        .post(&["files"])
        .header(
            "Idempotency-Key",
            job.state.upload.idempotency_key.to_string(),
        )
        .header("Content-Digest", content_digest(digest))
        .header(
            header::CONTENT_DISPOSITION,
            format!("attachment; filename*=UTF-8''{name}"),
        );
    if let Some(content_type) = job.content_type() {
        request = request.header(header::CONTENT_TYPE, content_type);
    }
    if let Some(metadata) = job.uploads.args.metadata_text() {
        request = request.query(&[("metadata", metadata)]);
    }
    if let Some(batch) = job.uploads.args.batch {
        request = request.query(&[("batch_id", batch)]);
    }
    job.transmit(request, 0..job.source.size).await
}
