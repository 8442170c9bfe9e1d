//! Uploads a large file, or one with long metadata: an upload session whose parts are sent in parallel and in any
//! order.
//!
//! The session's id is written to disk before the first part is sent, so after any interruption `--resume` finds the
//! session and sends only the missing parts. Sending a part twice has no effect.

use super::{
    job::UploadJob,
    schema::{AcceptedFile, UploadSession, content_digest, parse_file},
};
use crate::sha256::Sha256Digest;
use crate::{
    api::{ApiResponse, CallError},
    retry::with_retries,
};
use anyhow::Context;
use futures::{TryStreamExt, stream};
use http::{StatusCode, header};
use reqwest::RequestBuilder;
use serde_json::{Map, Value};
use uuid::Uuid;

/// How often the missing parts of an incomplete session are sent again.
const MAX_ROUNDS: u32 = 3;

/// Uploads the file; returns it as accepted by the server, and the digest of what was sent.
pub(super) async fn send(job: &mut UploadJob<'_>) -> anyhow::Result<(AcceptedFile, Sha256Digest)> {
    let hashing = job.source.hash_whole();
    let mut session = match resumed(job).await? {
        Some(session) => session,
        None => open(job).await?,
    };
    job.meter.add(session.bytes_received.min(job.source.size));
    let mut rounds = 0;
    let file = loop {
        if session.status != "complete" {
            parts(job, &session).await?;
        }
        job.source.require_unchanged()?;
        match complete(job, session.id).await {
            Err(CallError::Rejected(error))
                if error.code() == "parts_missing" && rounds < MAX_ROUNDS => {}
            reply => break parse_file(reply?.text)?,
        }
        rounds += 1;
        session = fetch(job, session.id).await?;
    };
    job.meter.set_message("hashing");
    Ok((file, hashing.finish().await.map_err(CallError::Local)?))
}

/// Returns the session to resume, if the server still has it.
async fn resumed(job: &mut UploadJob<'_>) -> anyhow::Result<Option<UploadSession>> {
    let Some(id) = job.state.upload.session_id else {
        return Ok(None);
    };
    match fetch(job, id).await {
        Ok(session) if session.is_alive() && session.total_size_bytes == job.source.size => {
            Ok(Some(session))
        }
        Ok(_) => job.restart().map(|()| None),
        Err(CallError::Rejected(error))
            if matches!(error.status, StatusCode::NOT_FOUND | StatusCode::GONE) =>
        {
            job.restart().map(|()| None)
        }
        Err(error) => Err(error.into()),
    }
}

async fn open(job: &mut UploadJob<'_>) -> anyhow::Result<UploadSession> {
    let args = &job.uploads.args;
    let mut body = Map::new();
    body.insert(
        "original_filename".to_owned(),
        job.source.name.as_str().into(),
    );
    body.insert("total_size_bytes".to_owned(), job.source.size.into());
    let optional = [
        ("content_type", job.content_type().map(Value::from)),
        ("chunk_size_bytes", args.chunk_size.map(Value::from)),
        ("batch_id", args.batch.map(|id| id.to_string().into())),
        ("metadata", args.metadata.clone().map(Value::Object)),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    }
    let key = job.state.upload.idempotency_key.to_string();
    let create = || {
        job.uploads
            .api
            .post(&["uploads"])
            .header("Idempotency-Key", &key)
            .json(&body)
    };
    let session: UploadSession = call_with_retries(job, create).await?.json()?;
    anyhow::ensure!(
        session.chunk_size_bytes > 0,
        "the server requires empty parts"
    );
    job.state.upload.session_id = Some(session.id);
    job.state.write()?;
    Ok(session)
}

/// Sends the missing parts, several at once.
async fn parts(job: &UploadJob<'_>, session: &UploadSession) -> anyhow::Result<()> {
    let missing = session.missing().with_context(|| {
        format!(
            "the server sent invalid received_parts `{}`",
            session.received_parts
        )
    })?;
    let numbers = stream::iter(missing.into_iter().flatten().map(Ok));
    numbers
        .try_for_each_concurrent(job.uploads.args.parallel(), |number| {
            part(job, session, number)
        })
        .await
}

async fn part(job: &UploadJob<'_>, session: &UploadSession, number: u32) -> anyhow::Result<()> {
    let _slot = job.uploads.slot().await;
    let start = session
        .chunk_size_bytes
        .saturating_mul(u64::from(number - 1));
    let range = start
        ..start
            .saturating_add(session.chunk_size_bytes)
            .min(job.source.size);
    anyhow::ensure!(
        !range.is_empty(),
        "the server requires part {number}, which the file does not have"
    );
    let digest = job
        .source
        .hash(range.clone())
        .await
        .map_err(CallError::Local)?;
    let (id, number) = (session.id.to_string(), number.to_string());
    let put = async || {
        let request = job
            .uploads
            .api
            .put(&["uploads", &id, "parts", &number])
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header("Content-Digest", content_digest(digest));
        job.transmit(request, range.clone()).await.map(|_| ())
    };
    let sent = with_retries(
        &job.uploads.api,
        |error, pause| job.meter.pausing(error, pause),
        put,
    )
    .await;
    job.meter.set_message("");
    match sent {
        Err(CallError::Rejected(error)) if error.code() == "part_conflict" => Err(error)
            .context("the file has changed since its upload started; upload it without --resume"),
        sent => Ok(sent?),
    }
}

async fn complete(job: &UploadJob<'_>, id: Uuid) -> Result<ApiResponse, CallError> {
    let id = id.to_string();
    call_with_retries(job, || job.uploads.api.post(&["uploads", &id, "complete"])).await
}

async fn fetch(job: &UploadJob<'_>, id: Uuid) -> Result<UploadSession, CallError> {
    let id = id.to_string();
    call_with_retries(job, || job.uploads.api.get(&["uploads", &id]))
        .await?
        .json()
}

async fn call_with_retries(
    job: &UploadJob<'_>,
    request: impl Fn() -> RequestBuilder,
) -> Result<ApiResponse, CallError> {
    let api = &job.uploads.api;
    with_retries(
        api,
        |error, pause| job.meter.pausing(error, pause),
        async || api.call(request()).await,
    )
    .await
}
