//! Bytes at an offset: tus and the IETF draft.
//!
//! A task of its own takes the upload, writes and counts, so that what came before a client went away is kept
//! although its request is dropped. The body is taken in stretches; each is synced and then counted.

use super::{
    Bytestream, UploadError,
    at_once::{self, AtOnce},
    close::{Reason, close},
    guard,
    hold::{Hold, Taken, Then, take},
    lease::renewing,
    source::{Ended, Pace, Source},
};
use crate::{
    context::Landfall,
    failpoint,
    files::Scope,
    staging::{Algorithm, Appended, Options, StagingError, hashes::Hasher},
};
use entity::{
    UploadId,
    upload::{Model, UploadStatus},
};
use futures::StreamExt;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often a writer whose client pauses looks whether somebody else has come.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A stretch on a disk: a sync every two seconds costs nothing beside the bytes.
pub(super) const ON_DISK: Pace = Pace {
    size: 64 * 1024 * 1024,
    time: Duration::from_secs(2),
    pause: Duration::from_millis(200),
};

/// A stretch in a bucket, where each is an object at least.
const IN_BUCKET: Pace = Pace {
    size: 64 * 1024 * 1024,
    time: Duration::from_secs(5),
    pause: Duration::from_secs(1),
};

/// What the bytes of one append have to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checksum {
    pub algorithm: Algorithm,
    pub digest: Vec<u8>,
}

/// One append.
#[derive(Clone, Debug, Default)]
pub struct Append {
    /// Where the client believes the upload to be, in bytes.
    pub offset: u64,
    /// Sets the length of an upload that has none yet, in bytes.
    pub length: Option<u64>,
    /// How long the body is, in bytes, if the client says so: one that does not fit is refused before it is read.
    pub content_length: Option<u64>,
    /// Checked before any of the bytes counts.
    pub checksum: Option<Checksum>,
    /// The upload ends where this body ends.
    pub last: bool,
}

/// Appends a body at an offset, and completes the upload with its last byte; its finalize job is pushed then. All that
/// came counts, also when the body breaks off, stalls or is too long, or when the caller goes away: then within
/// moments, in a task of its own. Only with a checksum it is all or nothing.
///
/// A writer whose client pauses is pre-empted; for one that is at work a newcomer waits six seconds.
///
/// # Errors
/// [`UploadError::WrongOffset`], [`UploadError::Locked`], [`UploadError::TooLarge`] (the surplus is discarded),
/// [`UploadError::ChecksumMismatch`], [`UploadError::LengthFixed`], [`UploadError::Stalled`] after
/// `server.idle_timeout`, and the rest of [`UploadError`].
pub async fn append(
    landfall: &Landfall,
    scope: &Scope,
    id: UploadId,
    request: Append,
    body: Bytestream,
) -> Result<Model, UploadError> {
    let stop = CancellationToken::new();
    let stop_when_dropped = stop.clone().drop_guard();
    let (landfall, scope) = (landfall.clone(), scope.clone());
    let task = tokio::spawn(async move {
        let bytes = guard::Bytes {
            offset: request.offset,
            length: request.length,
            last: request.last,
        };
        let body = Box::pin(guard::guarded(&landfall, &scope, id, bytes, body)).await?;
        let at_once = at_once::append(&landfall, &scope, id, &request, body);
        let body = match Box::pin(at_once).await? {
            AtOnce::Done(upload) => return Ok(*upload),
            AtOnce::Not(body) => body,
        };
        match Box::pin(take(&landfall, &scope, id, &request, &stop)).await? {
            Taken::Done(upload) => at_its_end(*upload, &request, body).await,
            Taken::Held(hold) => {
                let paced = request.checksum.is_none().then(|| pace(&hold));
                let patience = landfall.config.server.idle_timeout;
                let source = Source::new(body, stop, paced, patience);
                Writer {
                    hold: *hold,
                    source,
                    request,
                }
                .run()
                .await
            }
        }
    });
    let outcome = task.await.map_err(UploadError::Lost)?;
    drop(stop_when_dropped);
    outcome
}

/// A request at the end of a complete upload, as a client sends it whose last answer was lost. It may bring no more
/// bytes than while the upload was open.
async fn at_its_end(
    upload: Model,
    request: &Append,
    mut body: Bytestream,
) -> Result<Model, UploadError> {
    let limit = upload.bytes_received.unsigned_abs();
    if request.content_length.is_some_and(|length| length > 0) {
        return Err(UploadError::TooLarge { limit });
    }
    while let Some(bytes) = body.next().await {
        if !bytes.map_err(UploadError::ended_by)?.is_empty() {
            return Err(UploadError::TooLarge { limit });
        }
    }
    let nothing = |sum: &Checksum| {
        let found = Hasher::new(&[sum.algorithm], None).finish();
        found.get(sum.algorithm) == Some(sum.digest.as_slice())
    };
    match request.checksum.as_ref().is_none_or(nothing) {
        true => Ok(upload),
        false => Err(UploadError::ChecksumMismatch),
    }
}

fn pace(hold: &Hold) -> Pace {
    match hold.landfall.staging.local_path(hold.key()) {
        Some(_) => ON_DISK,
        None => IN_BUCKET,
    }
}

struct Writer {
    hold: Hold,
    source: Source,
    request: Append,
}

// A slow client holds the future of a writer for as long as it sends: what is done between stretches is boxed, so that
// it takes memory only while it is done.
impl Writer {
    async fn run(mut self) -> Result<Model, UploadError> {
        loop {
            let appended = match self.stage().await {
                Ok(appended) => appended,
                Err(error) => return Box::pin(self.not_staged(error)).await,
            };
            let ended = self.source.ended();
            if let Some(more) = Box::pin(self.count(appended, ended)).await? {
                let ended = match more {
                    Ended::Paused => Box::pin(self.wait()).await?,
                    other => other,
                };
                match ended {
                    Ended::Due => continue,
                    ended => return Box::pin(self.end(ended)).await,
                }
            }
            return Ok(self.hold.upload);
        }
    }

    async fn stage(&mut self) -> Result<Appended, StagingError> {
        let hashes: Vec<Algorithm> = self
            .request
            .checksum
            .iter()
            .map(|sum| sum.algorithm)
            .collect();
        let options = Options {
            limit: self.hold.room(),
            expected: self.request.content_length.take(),
            hashes: &hashes,
            running: self.hold.running.as_ref(),
        };
        let (key, offset) = (self.hold.key(), self.hold.offset());
        let staging = self.hold.landfall.staging.clone();
        let stop = self.source.stop().clone();
        let work = Box::pin(staging.append(key, offset, self.source.stretch(), options));
        let renew = || Box::pin(self.hold.set_lease(Then::GoOn));
        renewing(&stop, renew, work).await
    }

    /// Counts a stretch. None when that was all; else why the stretch ended.
    async fn count(
        &mut self,
        appended: Appended,
        ended: Ended,
    ) -> Result<Option<Ended>, UploadError> {
        if let Some(checksum) = &self.request.checksum {
            let whole = matches!(ended, Ended::Whole) && appended.stopped.is_none();
            let found = appended.hashes.get(checksum.algorithm);
            if whole && found != Some(checksum.digest.as_slice()) {
                self.let_go().await;
                return Err(UploadError::ChecksumMismatch);
            }
            if !whole {
                self.let_go().await;
                return Err(appended
                    .stopped
                    .map_or_else(|| fault(ended), UploadError::from));
            }
        }
        let then = match (&appended.stopped, &ended) {
            (None, Ended::Due) => Then::GoOn,
            (None, Ended::Paused) => Then::Yield,
            _ => Then::Release,
        };
        let last = self.request.last && appended.stopped.is_none() && matches!(ended, Ended::Whole);
        failpoint!("uploads.synced");
        self.hold.running = appended.running;
        self.hold.advance(appended.length, last, then).await?;
        failpoint!("uploads.counted");
        if let Some(error) = appended.stopped {
            return Err(error.into());
        }
        Ok(match ended {
            Ended::Whole => None,
            // That was all; whatever else the client may send is surplus.
            _ if self.hold.upload.status == UploadStatus::Complete => None,
            other => Some(other),
        })
    }

    /// Waits for a client that pauses, until it goes on or somebody else comes.
    async fn wait(&mut self) -> Result<Ended, UploadError> {
        let until = Instant::now() + self.source.patience();
        loop {
            match self.source.resumed(LOOK_EVERY).await {
                Ended::Due => {
                    return if self.hold.set_lease(Then::GoOn).await? {
                        Ok(Ended::Due)
                    } else {
                        Err(UploadError::Preempted)
                    };
                }
                Ended::Paused if Instant::now() >= until => return Ok(Ended::Stalled),
                Ended::Paused => {
                    if !self.hold.is_mine(self.hold.landfall.db.read()).await? {
                        return Err(UploadError::Preempted);
                    }
                }
                other => return Ok(other),
            }
        }
    }

    /// The body is over, one way or another, and all of it is counted.
    async fn end(mut self, ended: Ended) -> Result<Model, UploadError> {
        match ended {
            Ended::Whole => {
                let offset = self.hold.offset();
                self.hold
                    .advance(offset, self.request.last, Then::Release)
                    .await?;
                Ok(self.hold.upload)
            }
            other => {
                self.let_go().await;
                Err(fault(other))
            }
        }
    }

    /// Nothing could be written. An upload whose counted bytes are not there any more is given up, so that its client
    /// learns to begin again.
    async fn not_staged(&self, error: StagingError) -> Result<Model, UploadError> {
        if matches!(error, StagingError::Gone | StagingError::WrongOffset { .. }) {
            let (landfall, id) = (&self.hold.landfall, self.hold.upload.id);
            tracing::error!(upload.id = %id, %error, "staging has lost bytes of an upload, which is given up");
            close(landfall, id, Reason::StagingGone).await?;
            return Err(UploadError::Closed(UploadStatus::Failed));
        }
        self.let_go().await;
        Err(error.into())
    }

    /// A lease that is not given back ends by itself.
    async fn let_go(&self) {
        if let Err(error) = self.hold.set_lease(Then::Release).await {
            tracing::debug!(upload.id = %self.hold.upload.id, %error, "a lease was left to end by itself");
        }
    }
}

fn fault(ended: Ended) -> UploadError {
    match ended {
        Ended::Broken(error) => UploadError::ended_by(error),
        Ended::Stalled => UploadError::Stalled,
        Ended::Stopped | Ended::Due | Ended::Paused | Ended::Whole => UploadError::Preempted,
    }
}
