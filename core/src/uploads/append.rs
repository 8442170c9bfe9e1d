//! Bytes at an offset: tus and the IETF draft.
//!
//! A task of its own acquires the write lease, writes and counts, so that what came before a client went away is kept
//! although its request is dropped. The body is taken in stretches; each is synced and then counted.
//!
//! A writer appends to a segment of its own. The next one of the same process continues it, when none of another came in
//! between; every other one begins a new segment, and so leaves alone what a late writer may still be doing.

use super::{
    UploadBytes, UploadError,
    acquire::{AcquireOutcome, acquire},
    body_stream::{BodyStream, CountingPolicy, StretchEnd},
    guard,
    lease::renewing,
    single_append::{self, SingleAppend},
    write_lease::{LeaseAction, WriteLease},
    writers::ActiveWriter,
};
use crate::{
    app::App,
    failpoint,
    files::OwnerScope,
    quota::within_quota,
    staging::{AppendOutcome, ChecksumAlgorithm, StagingError, WriteOptions, hashes::Hasher},
};
use entity::{
    UploadId,
    upload::{Model, UploadStatus},
};
use futures::StreamExt;
use std::{io, sync::Arc, time::Duration};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often a writer whose client pauses looks whether somebody else has come.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// A stretch on a disk: a sync every two seconds costs nothing beside the bytes.
pub(super) const ON_DISK: CountingPolicy = CountingPolicy {
    size: 64 * 1024 * 1024,
    time: Duration::from_secs(2),
    pause: Duration::from_millis(200),
};

/// A stretch in a bucket, where each is an object at least.
const IN_BUCKET: CountingPolicy = CountingPolicy {
    size: 64 * 1024 * 1024,
    time: Duration::from_secs(5),
    pause: Duration::from_secs(1),
};

/// What the bytes of one append have to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checksum {
    pub algorithm: ChecksumAlgorithm,
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
    app: &App,
    scope: &OwnerScope,
    id: UploadId,
    request: Append,
    body: UploadBytes,
) -> Result<Model, UploadError> {
    let stop = CancellationToken::new();
    let stop_when_dropped = stop.clone().drop_guard();
    let (app, scope) = (app.clone(), scope.clone());
    let task = tokio::spawn(async move {
        let bytes = guard::BodyRange {
            offset: request.offset,
            length: request.length,
            last: request.last,
        };
        let body = Box::pin(guard::guarded(&app, &scope, id, bytes, body)).await?;
        let at_work = app.uploads.writers().begin(id);
        let single = single_append::append(&app, &scope, id, &request, body, &at_work);
        let body = match Box::pin(single).await? {
            SingleAppend::Done(upload) => return Ok(*upload),
            SingleAppend::Not(body) => body,
        };
        match Box::pin(acquire(&app, &scope, id, &request, &stop)).await? {
            AcquireOutcome::Complete(upload) => at_its_end(*upload, &request, body).await,
            AcquireOutcome::Held(lease) => {
                let paced = request.checksum.is_none().then(|| pace(&app));
                let patience = app.config.server.idle_timeout;
                let body = Box::pin(reserved(&lease, request.content_length, body)).await?;
                let body = BodyStream::new(body, stop, paced, patience, at_work.requests());
                Appender {
                    lease: *lease,
                    body,
                    request,
                    at_work,
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
    mut body: UploadBytes,
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

/// The body, with room for it in the quota of the upload's owner; a length that is announced must fit whole.
async fn reserved(
    lease: &WriteLease,
    announced: Option<u64>,
    body: UploadBytes,
) -> Result<UploadBytes, UploadError> {
    let Some(reservation) = &lease.reservation else {
        return Ok(body);
    };
    if let Some(length) = announced {
        let covered = reservation.lock().await.cover_all(length).await;
        if let Err(error) = covered {
            // A lease that is not released ends by itself.
            if let Err(left) = lease.set_lease(LeaseAction::Release).await {
                tracing::debug!(error = %left, "a lease was left to end by itself");
            }
            return Err(error.into());
        }
    }
    Ok(within_quota(body, Some(Arc::clone(reservation))).boxed())
}

fn pace(app: &App) -> CountingPolicy {
    match app.staging.is_in_a_bucket() {
        true => IN_BUCKET,
        false => ON_DISK,
    }
}

struct Appender {
    lease: WriteLease,
    body: BodyStream,
    request: Append,
    at_work: ActiveWriter,
}

// A slow client holds the future of a writer for as long as it sends: what is done between stretches is boxed, so that
// it takes memory only while it is done.
impl Appender {
    async fn run(mut self) -> Result<Model, UploadError> {
        loop {
            let appended = match self.stage().await {
                Ok(appended) => appended,
                Err(error) => return Box::pin(self.not_staged(error)).await,
            };
            let ended = self.body.ended();
            if let Some(more) = Box::pin(self.count(appended, ended)).await? {
                let ended = match more {
                    StretchEnd::Paused => Box::pin(self.wait()).await?,
                    other => other,
                };
                match ended {
                    StretchEnd::Due => continue,
                    ended => return Box::pin(self.end(ended)).await,
                }
            }
            self.lease.leave_segment();
            return Ok(self.lease.upload);
        }
    }

    async fn stage(&mut self) -> Result<AppendOutcome, StagingError> {
        let hashes: Vec<ChecksumAlgorithm> = self
            .request
            .checksum
            .iter()
            .map(|sum| sum.algorithm)
            .collect();
        let options = WriteOptions {
            limit: self.lease.room(),
            expected: self.request.content_length.take(),
            hashes: &hashes,
            running: self.lease.running.as_ref(),
        };
        let segment = self.lease.segment();
        let staging = self.lease.app.staging.clone();
        let stop = self.body.stop().clone();
        let stretch = self.body.stretch();
        let work = Box::pin(staging.append(segment.key, segment.length, stretch, options));
        let renew = || Box::pin(self.lease.set_lease(LeaseAction::Keep));
        renewing(&stop, renew, work).await
    }

    /// Counts a stretch. None when that was all; else why the stretch ended.
    async fn count(
        &mut self,
        appended: AppendOutcome,
        ended: StretchEnd,
    ) -> Result<Option<StretchEnd>, UploadError> {
        let whole = matches!(ended, StretchEnd::Whole) && appended.stopped.is_none();
        if let Some(checksum) = &self.request.checksum {
            let found = appended.hashes.get(checksum.algorithm);
            if whole && found != Some(checksum.digest.as_slice()) {
                self.give_up().await;
                return Err(UploadError::ChecksumMismatch);
            }
            if !whole {
                self.give_up().await;
                return Err(appended
                    .stopped
                    .map_or_else(|| fault(ended), UploadError::from));
            }
        }
        let action = match (&appended.stopped, &ended) {
            (None, StretchEnd::Due) => LeaseAction::Keep,
            (None, StretchEnd::Paused) => LeaseAction::Yield,
            _ => LeaseAction::Release,
        };
        let last = self.request.last && whole;
        failpoint!("uploads.synced");
        self.lease.running = appended.running;
        let counted = self.lease.advance(appended.length, last, action).await;
        if let Err(error) = counted {
            // After an error of the database it may be counted all the same.
            if !matches!(error, UploadError::Database(_)) {
                self.lease.discard().await;
            }
            return Err(error);
        }
        failpoint!("uploads.counted");
        self.at_work.counted();
        if let Some(error) = appended.stopped {
            // What the client did wrong leaves the segment as it is counted; of the disk or bucket that is not known.
            if matches!(error, StagingError::Body(_) | StagingError::TooLarge { .. }) {
                self.lease.leave_segment();
            }
            return Err(error.into());
        }
        Ok(match ended {
            StretchEnd::Whole => None,
            // That was all; whatever else the client may send is surplus.
            _ if self.lease.upload.status == UploadStatus::Complete => None,
            other => Some(other),
        })
    }

    /// Waits for a client that pauses, until it continues or another writer comes.
    async fn wait(&mut self) -> Result<StretchEnd, UploadError> {
        let until = Instant::now() + self.body.remaining_pause();
        loop {
            match self.body.resumed(POLL_INTERVAL).await {
                StretchEnd::Due => {
                    return if self.lease.set_lease(LeaseAction::Keep).await? {
                        Ok(StretchEnd::Due)
                    } else {
                        Err(UploadError::Preempted)
                    };
                }
                StretchEnd::Paused if Instant::now() >= until => return Ok(StretchEnd::Stalled),
                StretchEnd::Paused => {
                    let db = self.lease.app.db.read();
                    if !self.lease.is_held(db).await? {
                        return Err(UploadError::Preempted);
                    }
                }
                other => return Ok(other),
            }
        }
    }

    /// The body is over, one way or another, and all of it is counted.
    async fn end(mut self, ended: StretchEnd) -> Result<Model, UploadError> {
        match ended {
            StretchEnd::Whole => {
                let length = self.lease.segment().length;
                self.lease
                    .advance(length, self.request.last, LeaseAction::Release)
                    .await?;
                self.lease.leave_segment();
                Ok(self.lease.upload)
            }
            other => {
                if self.release().await {
                    self.lease.leave_segment();
                }
                Err(fault(other))
            }
        }
    }

    /// Nothing could be written. Bytes that are not there are a fault of the surroundings, an unmounted volume say: the
    /// rows stay as they are, and the next writer begins a segment of its own.
    async fn not_staged(&self, error: StagingError) -> Result<Model, UploadError> {
        let id = self.lease.upload.id;
        let error = match error {
            error @ (StagingError::Gone
            | StagingError::Exists
            | StagingError::WrongLength { .. }) => {
                tracing::error!(upload.id = %id, %error, "staging is not as the last writer left it");
                StagingError::io("take bytes where others were staged")(io::Error::other(error))
            }
            error => error,
        };
        self.release().await;
        Err(error.into())
    }

    /// What was written does not count.
    async fn give_up(&self) {
        self.lease.discard().await;
        self.release().await;
    }

    /// False when it was lost. A lease that is not released ends by itself.
    async fn release(&self) -> bool {
        let released = self.lease.set_lease(LeaseAction::Release).await;
        released.unwrap_or_else(|error| {
            let id = self.lease.upload.id;
            tracing::debug!(upload.id = %id, %error, "a lease was left to end by itself");
            false
        })
    }
}

fn fault(ended: StretchEnd) -> UploadError {
    match ended {
        StretchEnd::Broken(error) => UploadError::ended_by(error),
        StretchEnd::Stalled => UploadError::Stalled,
        StretchEnd::Stopped | StretchEnd::Due | StretchEnd::Paused | StretchEnd::Whole => {
            UploadError::Preempted
        }
    }
}
