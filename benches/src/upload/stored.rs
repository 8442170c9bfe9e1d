//! Polls the uploaded files until they are stored, and verifies them.

use super::UploadArgs;
use crate::{
    connection::{Connection, Target},
    payload::Payload,
};
use anyhow::bail;
use futures::{StreamExt, TryStreamExt, stream};
use http::Method;
use landfall_core::digest::Sha256Digest;
use serde::Deserialize;
use std::time::{Duration, Instant};

/// `?wait=` of each poll, in seconds.
const WAIT_SECS: u32 = 30;

#[derive(Debug, Deserialize)]
struct StoredFile {
    status: String,
    size_bytes: u64,
    sha256: Option<String>,
}

/// Waits for all files, with as many connections as they were sent by.
pub(super) async fn all(
    target: &Target,
    files: &[String],
    digest: Sha256Digest,
    args: &UploadArgs,
) -> anyhow::Result<()> {
    if files.len() as u64 != u64::from(args.uploads) {
        bail!("{} uploads made {} files", args.uploads, files.len());
    }
    // Two minutes, and one second per 10 MiB: a slow disk is not an error.
    let timeout = Duration::from_secs(120 + args.bytes() / (10 * 1024 * 1024));
    let until = Instant::now() + timeout;
    let connections = usize::from(args.at_once).min(files.len());
    let shares = files.chunks(files.len().div_ceil(connections));
    stream::iter(shares)
        .map(async |share| {
            let mut connection = Connection::open(target).await?;
            for id in share {
                one(&mut connection, id, digest, args.size, until).await?;
            }
            Ok::<_, anyhow::Error>(())
        })
        .buffer_unordered(connections)
        .try_collect()
        .await
}

async fn one(
    connection: &mut Connection<'_>,
    id: &str,
    digest: Sha256Digest,
    size: u64,
    until: Instant,
) -> anyhow::Result<()> {
    let path = connection
        .target
        .path(&format!("/v1/files/{id}?wait={WAIT_SECS}"));
    loop {
        let response = connection
            .call(Method::GET, &path, &[], Payload::empty())
            .await?;
        let file: StoredFile = response.done("looking at a file")?.json()?;
        match file.status.as_str() {
            "stored" if file.size_bytes != size => {
                bail!("file {id} has {} bytes, not {size}", file.size_bytes)
            }
            "stored" if file.sha256.as_deref() != Some(&digest.to_string()) => {
                bail!("file {id} has the SHA-256 {:?}, not {digest}", file.sha256)
            }
            "stored" => return Ok(()),
            "staged" | "finalizing" if Instant::now() < until => {}
            other => bail!("file {id} is {other} and not stored"),
        }
    }
}
