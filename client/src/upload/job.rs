//! One file of the command: sent in the way that fits it, waited for if so wished, and compared.

use super::{
    Uploads,
    progress::Meter,
    session, single,
    source::Source,
    state::State,
    wire::{Taken, taken},
};
use crate::sha256::Sha256Digest;
use crate::{
    api::{CallError, Reply},
    output::plain,
    retry::retrying,
};
use http::{StatusCode, header};
use reqwest::RequestBuilder;
use std::{
    ops::Range,
    path::Path,
    time::{Duration, Instant},
};
use uuid::Uuid;

/// How long the server is asked to hold an answer, in seconds.
const HOLD: u64 = 30;

/// A server that does not hold its answers is asked no more often than this.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

/// A file on its way.
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub(super) uploads: &'a Uploads,
    pub(super) source: Source,
    pub(super) state: State,
    pub(super) meter: Meter,
}

/// A file that the server has taken in.
#[derive(Debug)]
pub(super) struct Landed {
    pub(super) file: Taken,
    /// What was read here.
    pub(super) digest: Sha256Digest,
    pub(super) state: State,
}

/// Uploads one file.
pub(super) async fn run(uploads: &Uploads, path: &Path) -> anyhow::Result<Landed> {
    let source = Source::open(path)?;
    let state = State::begin(
        uploads.states.as_deref(),
        uploads.api.url(),
        &source,
        &uploads.args,
    )?;
    let meter = uploads.progress.file(&source.name, source.size);
    let mut job = Job {
        uploads,
        source,
        state,
        meter,
    };
    let landed = job.land().await;
    job.meter.finish();
    let (file, digest) = landed?;
    Ok(Landed {
        file,
        digest,
        state: job.state,
    })
}

impl Job<'_> {
    async fn land(&mut self) -> anyhow::Result<(Taken, Sha256Digest)> {
        let (mut file, digest) = match self.already_taken().await? {
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
            self.meter.say("waiting until it is stored");
            while !file.view.is_final() {
                file = self.look_when_final(file.view.id).await?;
            }
        }
        Ok((file, digest))
    }

    fn is_single(&self) -> bool {
        let metadata = self.uploads.args.metadata_text();
        self.source.size <= single::LARGEST
            && metadata.is_none_or(|text| text.len() <= single::METADATA)
    }

    /// What the command says, or what the name suggests; none leaves it to the server.
    pub(super) fn content_type(&self) -> Option<String> {
        let said = self.uploads.args.content_type.clone();
        said.or_else(|| {
            mime_guess::from_path(&self.source.name)
                .first_raw()
                .map(str::to_owned)
        })
    }

    /// The file, when an earlier run has sent it.
    async fn already_taken(&mut self) -> anyhow::Result<Option<Taken>> {
        let Some(id) = self.state.upload.file_id else {
            return Ok(None);
        };
        match self.look(id, 0).await {
            Ok(reply) => {
                let file = taken(reply.text)?;
                if !matches!(file.view.status.as_str(), "failed" | "deleted") {
                    self.meter.add(self.source.size);
                    return Ok(Some(file));
                }
            }
            Err(CallError::Refused(refusal)) if refusal.status == StatusCode::NOT_FOUND => {}
            Err(error) => return Err(error.into()),
        }
        self.begin_anew()?;
        Ok(None)
    }

    /// Gives up what an earlier run began, and says so.
    pub(super) fn begin_anew(&mut self) -> anyhow::Result<()> {
        let name = plain(&self.source.name);
        self.uploads.progress.note(&format!(
            "{name}: the earlier upload cannot be gone on with; it begins anew"
        ));
        self.state.restart()
    }

    /// Sends some of the file's bytes with a request; uncounts them when that fails.
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

    async fn look(&self, id: Uuid, hold: u64) -> Result<Reply, CallError> {
        let (api, id) = (&self.uploads.api, id.to_string());
        retrying(
            api,
            |error, pause| self.meter.pausing(error, pause),
            async || {
                api.call(api.get(&["files", &id]).query(&[("wait", hold)]))
                    .await
            },
        )
        .await
    }

    async fn look_when_final(&self, id: Uuid) -> anyhow::Result<Taken> {
        let asked = Instant::now();
        let reply = self.look(id, HOLD).await?;
        let retry_after = reply
            .retry_after
            .unwrap_or_default()
            .min(Duration::from_secs(HOLD));
        let file = taken(reply.text)?;
        if !file.view.is_final() && asked.elapsed() < BETWEEN_LOOKS {
            tokio::time::sleep(retry_after.max(BETWEEN_LOOKS)).await;
        }
        Ok(file)
    }
}

impl Landed {
    /// One line for people.
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

    /// What is wrong with it, if anything.
    pub(super) fn complaint(&self) -> Option<String> {
        let view = &self.file.view;
        match (view.status.as_str(), view.sha256) {
            ("failed", _) => Some(match &view.error {
                Some(error) => format!(
                    "it failed: {} ({})",
                    plain(&error.message),
                    plain(&error.code)
                ),
                None => "it failed, and the server does not say why".to_owned(),
            }),
            ("deleted", _) => Some("it was deleted".to_owned()),
            (_, Some(theirs)) if theirs.0 != self.digest => Some(format!(
                "THE STORED BYTES DIFFER: the server has SHA-256 {}, the file here has {}",
                theirs.0, self.digest
            )),
            _ => None,
        }
    }
}
