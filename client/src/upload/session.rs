//! A large file, or one with long metadata: an upload session, whose parts go in parallel and in any order.
//!
//! The session's id is on disk before the first part is sent, so whatever ends the command leaves a session that
//! `--resume` finds, and of which it sends the missing parts alone. A part that arrived twice is a no-op.

use super::{
    job::Job,
    wire::{Session, Taken, content_digest, taken},
};
use crate::sha256::Sha256Digest;
use crate::{
    api::{CallError, Reply},
    retry::retrying,
};
use anyhow::Context;
use futures::{TryStreamExt, stream};
use http::{StatusCode, header};
use reqwest::RequestBuilder;
use serde_json::{Map, Value};
use uuid::Uuid;

/// How often a session that says it is not complete is looked at again.
const ROUNDS: u32 = 3;

/// Sends the file; answers it as the server took it in, and what was sent.
pub(super) async fn send(job: &mut Job<'_>) -> anyhow::Result<(Taken, Sha256Digest)> {
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
            Err(CallError::Refused(refusal))
                if refusal.code() == "parts_missing" && rounds < ROUNDS => {}
            reply => break taken(reply?.text)?,
        }
        rounds += 1;
        session = look(job, session.id).await?;
    };
    job.meter.say("hashing");
    Ok((file, hashing.finish().await.map_err(CallError::Local)?))
}

/// The session to go on with, if there is one that the server still knows.
async fn resumed(job: &mut Job<'_>) -> anyhow::Result<Option<Session>> {
    let Some(id) = job.state.upload.session_id else {
        return Ok(None);
    };
    match look(job, id).await {
        Ok(session) if session.is_alive() && session.total_size_bytes == job.source.size => {
            Ok(Some(session))
        }
        Ok(_) => job.begin_anew().map(|()| None),
        Err(CallError::Refused(refusal))
            if matches!(refusal.status, StatusCode::NOT_FOUND | StatusCode::GONE) =>
        {
            job.begin_anew().map(|()| None)
        }
        Err(error) => Err(error.into()),
    }
}

async fn open(job: &mut Job<'_>) -> anyhow::Result<Session> {
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
    let session: Session = patiently(job, create).await?.json()?;
    anyhow::ensure!(
        session.chunk_size_bytes > 0,
        "the server wants parts of no bytes"
    );
    job.state.upload.session_id = Some(session.id);
    job.state.write()?;
    Ok(session)
}

/// Sends the parts that the server lacks, some at once.
async fn parts(job: &Job<'_>, session: &Session) -> anyhow::Result<()> {
    let missing = session.missing().with_context(|| {
        format!(
            "the server has parts `{}`, which cannot be understood",
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

async fn part(job: &Job<'_>, session: &Session, number: u32) -> anyhow::Result<()> {
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
        "the server wants a part {number} that the file does not have"
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
    let sent = retrying(
        &job.uploads.api,
        |error, pause| job.meter.pausing(error, pause),
        put,
    )
    .await;
    job.meter.say("");
    match sent {
        Err(CallError::Refused(refusal)) if refusal.code() == "part_conflict" => Err(refusal)
            .context(
                "the file has other bytes than when its upload began; upload it without --resume",
            ),
        sent => Ok(sent?),
    }
}

async fn complete(job: &Job<'_>, id: Uuid) -> Result<Reply, CallError> {
    let id = id.to_string();
    patiently(job, || job.uploads.api.post(&["uploads", &id, "complete"])).await
}

async fn look(job: &Job<'_>, id: Uuid) -> Result<Session, CallError> {
    let id = id.to_string();
    patiently(job, || job.uploads.api.get(&["uploads", &id]))
        .await?
        .json()
}

async fn patiently(
    job: &Job<'_>,
    request: impl Fn() -> RequestBuilder,
) -> Result<Reply, CallError> {
    let api = &job.uploads.api;
    retrying(
        api,
        |error, pause| job.meter.pausing(error, pause),
        async || api.call(request()).await,
    )
    .await
}
