//! Uploads one file: in one request or in a session, then waits for it and compares digests if requested.

use super::{
    Uploads,
    progress::Meter,
    schema::{AcceptedFile, parse_file},
    session, single,
    source::LocalFile,
    state::ResumeState,
};
use crate::sha256::Sha256Digest;
use crate::{
    api::{ApiResponse, CallError},
    output::plain,
    retry::with_retries,
};
use http::{StatusCode, header};
use reqwest::RequestBuilder;
use std::{
    ops::Range,
    path::Path,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// `?wait=` of each poll, in seconds.
const WAIT_SECS: u64 = 30;

/// Minimum interval between polls, for servers that respond at once.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// A file being uploaded.
#[derive(Debug)]
pub(super) struct UploadJob<'a> {
    pub(super) uploads: &'a Uploads,
    pub(super) source: LocalFile,
    pub(super) state: ResumeState,
    pub(super) meter: Meter,
}

/// A file that the server has accepted.
#[derive(Debug)]
pub(super) struct UploadedFile {
    pub(super) file: AcceptedFile,
    /// The digest of the local file.
    pub(super) digest: Sha256Digest,
    pub(super) state: ResumeState,
}

/// Uploads one file.
pub(super) async fn run(uploads: &Uploads, path: &Path) -> anyhow::Result<UploadedFile> {
    let source = LocalFile::open(path)?;
    let state = ResumeState::begin(
        uploads.states.as_deref(),
        uploads.api.url(),
        &source,
        &uploads.args,
    )?;
    let meter = uploads.progress.file(&source.name, source.size);
    let mut job = UploadJob {
        uploads,
        source,
        state,
        meter,
    };
    let uploaded = job.upload().await;
    job.meter.finish();
    let (file, digest) = uploaded?;
    Ok(UploadedFile {
        file,
        digest,
        state: job.state,
    })
}

impl UploadJob<'_> {
    async fn upload(&mut self) -> anyhow::Result<(AcceptedFile, Sha256Digest)> {
        let (mut file, digest) = match self.already_accepted().await? {
            Some(file) => (
                file,
                self.source
                    .hash_whole()
                    .finish()
                    .await
                    .map_err(CallError::Local)?,
            ),
            None if self.is_single() => single::send(self).await?,
            None => session::send(self).await?,
        };
        self.state.upload.file_id = Some(file.view.id);
        self.state.write()?;
        if self.uploads.args.wait {
            self.meter.set_message("waiting until it is stored");
            while !file.view.is_final() {
                file = self.wait_until_final(file.view.id).await?;
            }
        }
        Ok((file, digest))
    }

    fn is_single(&self) -> bool {
        let metadata = self.uploads.args.metadata_text();
        self.source.size <= single::MAX_SINGLE_REQUEST_LEN
            && metadata.is_none_or(|text| text.len() <= single::MAX_QUERY_METADATA_LEN)
    }

    /// The media type from the command line or the file name; `None` leaves it to the server.
    pub(super) fn content_type(&self) -> Option<String> {
        let said = self.uploads.args.content_type.clone();
        said.or_else(|| {
            mime_guess::from_path(&self.source.name)
                .first_raw()
                .map(str::to_owned)
        })
    }

    /// Returns the file if an earlier run has already sent it.
    async fn already_accepted(&mut self) -> anyhow::Result<Option<AcceptedFile>> {
        let Some(id) = self.state.upload.file_id else {
            return Ok(None);
        };
        match self.fetch(id, 0).await {
            Ok(reply) => {
                let file = parse_file(reply.text)?;
                if !matches!(file.view.status.as_str(), "failed" | "deleted") {
                    self.meter.add(self.source.size);
                    return Ok(Some(file));
                }
            }
            Err(CallError::Rejected(error)) if error.status == StatusCode::NOT_FOUND => {}
            Err(error) => return Err(error.into()),
        }
        self.restart()?;
        Ok(None)
    }

    /// Discards the upload of an earlier run, with a message.
    pub(super) fn restart(&mut self) -> anyhow::Result<()> {
        let name = plain(&self.source.name);
        self.uploads.progress.note(&format!(
            "{name}: the earlier upload cannot be resumed; starting over"
        ));
        self.state.restart()
    }

    /// Sends some of the file's bytes with a request; subtracts them from the progress if that fails.
    pub(super) async fn transmit(
        &self,
        request: RequestBuilder,
        range: Range<u64>,
    ) -> Result<String, CallError> {
        let length = range.end - range.start;
        let outgoing = self.source.send(range, &self.meter);
        let request = request
            .header(header::CONTENT_LENGTH, length)
            .body(outgoing.body);
        let sent = self
            .uploads
            .api
            .call_unless(request, outgoing.flow.stalled())
            .await;
        match sent {
            Ok(reply) => Ok(reply.text),
            Err(error) => Err(outgoing.flow.give_up().map_or(error, CallError::Local)),
        }
    }

    async fn fetch(&self, id: Uuid, hold: u64) -> Result<ApiResponse, CallError> {
        let (api, id) = (&self.uploads.api, id.to_string());
        with_retries(
            api,
            |error, pause| self.meter.pausing(error, pause),
            async || {
                api.call(api.get(&["files", &id]).query(&[("wait", hold)]))
                    .await
            },
        )
        .await
    }

    async fn wait_until_final(&self, id: Uuid) -> anyhow::Result<AcceptedFile> {
        let asked = Instant::now();
        let reply = self.fetch(id, WAIT_SECS).await?;
        let retry_after = reply
            .retry_after
            .unwrap_or_default()
            .min(Duration::from_secs(WAIT_SECS));
        let file = parse_file(reply.text)?;
        if !file.view.is_final() && asked.elapsed() < POLL_INTERVAL {
            tokio::time::sleep(retry_after.max(POLL_INTERVAL)).await;
        }
        Ok(file)
    }
}

impl UploadedFile {
    /// Formats the file on one line.
    pub(super) fn line(&self) -> String {
        let view = &self.file.view;
        let digest = view.sha256.map_or(self.digest, |digest| digest.0);
        format!(
            "{}  {:<10}  {digest}  {}",
            view.id,
            plain(&view.status),
            plain(&view.original_filename)
        )
    }

    /// Returns what is wrong with the file, if anything.
    pub(super) fn complaint(&self) -> Option<String> {
        let view = &self.file.view;
        match (view.status.as_str(), view.sha256) {
            ("failed", _) => Some(match &view.error {
                Some(error) => {
                    format!("failed: {} ({})", plain(&error.message), plain(&error.code))
                }
                None => "failed, and the server does not say why".to_owned(),
            }),
            ("deleted", _) => Some("deleted".to_owned()),
            (_, Some(theirs)) if theirs.0 != self.digest => Some(format!(
                "THE STORED BYTES DIFFER: the server has SHA-256 {}, the local file has {}",
                theirs.0, self.digest
            )),
            _ => None,
        }
    }
}
