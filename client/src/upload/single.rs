//! Uploads a small file in one request: hashed first, so that the server can reject bytes that were corrupted in
//! transit.

use super::{
    job::UploadJob,
    schema::{AcceptedFile, content_digest, parse_file},
};
use crate::sha256::Sha256Digest;
use crate::{api::CallError, retry::with_retries};
use http::header;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Maximum size of a file sent in one request, in bytes.
pub(super) const MAX_SINGLE_REQUEST_LEN: u64 = 16 << 20;

/// Maximum size of metadata beside raw bytes, in bytes of JSON: it is in the URL, which proxies limit.
pub(super) const MAX_QUERY_METADATA_LEN: usize = 2048;

/// Characters that RFC 8187 allows unencoded in an extended value (`attr-char`).
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

/// Uploads the file; returns it as accepted by the server, and the digest of what was sent.
pub(super) async fn send(job: &UploadJob<'_>) -> anyhow::Result<(AcceptedFile, Sha256Digest)> {
    let digest = job
        .source
        .hash(0..job.source.size)
        .await
        .map_err(CallError::Local)?;
    let _slot = job.uploads.slot().await;
    let reply = with_retries(
        &job.uploads.api,
        |error, pause| job.meter.pausing(error, pause),
        async || {
            job.meter.set_message("");
            post(job, digest).await
        },
    )
    .await?;
    job.source.require_unchanged()?;
    Ok((parse_file(reply)?, digest))
}

async fn post(job: &UploadJob<'_>, digest: Sha256Digest) -> Result<String, CallError> {
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
