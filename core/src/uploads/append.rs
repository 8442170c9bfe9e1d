//! Appends bytes at an offset, for tus and the IETF draft.
//!
//! A separate task acquires the write lease, writes and counts, so that bytes received before a client disconnects are
//! kept although its request is dropped. The body is written in stretches; each is synced and then counted.
//!
//! A writer appends to a segment of its own. The next writer of the same process continues that segment if no other
//! process wrote in between; any other writer starts a new segment, and so does not interfere with what a late writer
//! may still be doing.

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
use std::{io, time::Duration};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often a writer whose client pauses checks whether another writer has come.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Stretches on a disk: a sync every two seconds is negligible.
pub(super) const ON_DISK: CountingPolicy = CountingPolicy {
    size: 64 * 1024 * 1024,
    time: Duration::from_secs(2),
    pause: Duration::from_millis(200),
};

/// Stretches in a bucket, where each is at least one object.
const IN_BUCKET: CountingPolicy = CountingPolicy {
    size: 64 * 1024 * 1024,
    time: Duration::from_secs(5),
    pause: Duration::from_secs(1),
};

/// The expected checksum of an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checksum {
    pub algorithm: ChecksumAlgorithm,
    pub digest: Vec<u8>,
}

/// An append request.
#[derive(Clone, Debug, Default)]
pub struct Append {
    /// The offset at which the client wants to continue, in bytes.
    pub offset: u64,
    /// Sets the length of an upload that has none yet, in bytes.
    pub length: Option<u64>,
    /// The declared length of the body, in bytes. A body that does not fit is rejected before it is read.
    pub content_length: Option<u64>,
    /// Verified before any of the bytes counts.
    pub checksum: Option<Checksum>,
    /// Whether the upload ends with this body.
    pub last: bool,
}

/// Appends a body at an offset. The last byte completes the upload, and its finalize job is pushed. All received bytes
/// count, even if the body is interrupted, stalls or is too long, or if the caller is dropped: then within moments, in
/// a separate task. With a checksum, either all bytes count or none.
///
/// A writer whose client pauses is preempted; for an active one, a new writer waits six seconds.
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
        if request.checksum.is_some() {
            at_work.set_counts_on_request(false);
        }
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

/// Handles a request at the end of a complete upload, which clients send when the last response was lost. It may not
/// bring more bytes than while the upload was open.
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

/// Returns the body with quota reserved for its owner; an announced length must fit completely.
async fn reserved(
    lease: &WriteLease,
    announced: Option<u64>,
    body: UploadBytes,
) -> Result<UploadBytes, UploadError> {
    let Some(reservation) = &lease.reservation else {
        return Ok(body);
    };
    if let Some(length) = announced {
        let covered = reservation.cover_all(length).await;
        if let Err(error) = covered {
            // A lease that is not released expires.
            if let Err(left) = lease.set_lease(LeaseAction::Release).await {
                tracing::debug!(error = %left, "a lease could not be released, it will expire");
            }
            return Err(error.into());
        }
    }
    Ok(within_quota(body, Some(reservation.clone())).boxed())
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

// A slow client keeps the future of a writer alive for as long as it sends. Work between stretches is boxed, so that it
// uses memory only while it runs.
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
            holds: None,
        };
        let segment = self.lease.segment();
        let staging = self.lease.app.staging.clone();
        let stop = self.body.stop().clone();
        let stretch = self.body.stretch();
        let work = Box::pin(staging.append(segment.key, segment.length, stretch, options));
        let renew = || Box::pin(self.lease.set_lease(LeaseAction::Keep));
        renewing(&stop, renew, work).await
    }

    /// Counts a stretch. Returns `None` when the upload is done, otherwise why the stretch ended.
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
            match error {
                // The bytes may have been counted anyway.
                UploadError::Database(_) => self.lease.keep_room().await,
                _ => self.lease.discard().await,
            }
            return Err(error);
        }
        failpoint!("uploads.counted");
        self.at_work.counted();
        if let Some(error) = appended.stopped {
            // A client's error leaves the segment as counted; after an error of the disk or bucket that is not certain.
            if matches!(error, StagingError::Body(_) | StagingError::TooLarge { .. }) {
                self.lease.leave_segment();
            }
            return Err(error.into());
        }
        Ok(match ended {
            StretchEnd::Whole => None,
            // The upload is complete; any further bytes are surplus.
            _ if self.lease.upload.status == UploadStatus::Complete => None,
            other => Some(other),
        })
    }

    /// Waits for a client that pauses, until it continues or another writer comes.
    async fn wait(&mut self) -> Result<StretchEnd, UploadError> {
        // Everything received so far is counted.
        self.at_work.set_counts_on_request(false);
        let until = Instant::now() + self.body.remaining_pause();
        loop {
            match self.body.resumed(POLL_INTERVAL).await {
                StretchEnd::Due => {
                    self.at_work.set_counts_on_request(true);
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

    /// Called when the body has ended, for whatever reason, and all of it is counted.
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

    /// Nothing could be written. Missing bytes are a fault of the environment, such as an unmounted volume: the rows
    /// are unchanged, and the next writer starts a segment of its own.
    async fn not_staged(&self, error: StagingError) -> Result<Model, UploadError> {
        let id = self.lease.upload.id;
        let error = match error {
            error @ (StagingError::Gone
            | StagingError::Exists
            | StagingError::WrongLength { .. }) => {
                tracing::error!(upload.id = %id, %error, "the staged segment is not as the last writer left it");
                StagingError::io("continue a segment")(io::Error::other(error))
            }
            error => error,
        };
        self.release().await;
        Err(error.into())
    }

    /// Discards what was written, which does not count.
    async fn give_up(&self) {
        self.lease.discard().await;
        self.release().await;
    }

    /// Returns false when the lease was lost. A lease that is not released expires.
    async fn release(&self) -> bool {
        let released = self.lease.set_lease(LeaseAction::Release).await;
        released.unwrap_or_else(|error| {
            let id = self.lease.upload.id;
            tracing::debug!(upload.id = %id, %error, "a lease could not be released, it will expire");
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
