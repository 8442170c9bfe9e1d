//! Numbered parts, sent in any order, in parallel, over several processes, and any number of times.
//!
//! A part is claimed in its row, staged, and counted together with its digest; a claim that is not renewed for a few
//! seconds expires. Each attempt stages a segment of its own, named by its claim, and the part's row names the one that
//! counts: of two concurrent attempts, the later one loses its claim and deletes its segment. A counted part is never
//! staged again; repeated bytes are compared by digest.

use super::{
    UploadBytes, UploadError,
    body_stream::{BodyStream, StretchEnd},
    guard,
    lease::{ACQUIRE_TIMEOUT, LEASE, POLL_INTERVAL, renewing},
    part_plan::{PartRange, range},
    query::{accepts_bytes, get, status_at},
    write_lease::{open, signed},
    writers::CountRequests,
};
use crate::{
    app::App,
    digest::Sha256Digest,
    failpoint,
    files::OwnerScope,
    staging::{ChecksumAlgorithm, SegmentWriter, Staging, StagingError, StagingKey, WriteOptions},
};
use entity::{
    Timestamp, UploadId,
    part::{Column, Entity, Model},
    upload::{self, UploadKind, UploadStatus},
};
use sea_orm::{
    ColumnTrait, DbErr, EntityTrait, IntoActiveModel, QueryFilter, UpdateMany,
    sea_query::{Expr, ExprTrait, OnConflict},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A part sent by a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewPart {
    /// From 1.
    pub number: u32,
    /// The declared length of the body, in bytes.
    pub content_length: Option<u64>,
    /// The declared digest of the bytes.
    pub digest: Option<Sha256Digest>,
}

/// A part that is durable and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedPart {
    /// From 1.
    pub number: u32,
    /// In bytes.
    pub size: u64,
    pub sha256: Sha256Digest,
}

/// Receives one part. Sending the same bytes again changes nothing and returns the same result.
///
/// # Errors
/// [`UploadError::NoSuchPart`], [`UploadError::SizeMismatch`], [`UploadError::DigestMismatch`],
/// [`UploadError::PartConflict`] for bytes that differ from those received before, [`UploadError::Locked`] when another
/// request is still writing the part after six seconds, [`UploadError::Closed`], and the rest of [`UploadError`].
/// Nothing of the part counts then.
pub async fn put_part(
    app: &App,
    scope: &OwnerScope,
    id: UploadId,
    part: NewPart,
    body: UploadBytes,
) -> Result<ReceivedPart, UploadError> {
    let upload = get(app.db.read(), scope, id).await?;
    let range = where_it_lies(&upload, part, app.clock.now())?;
    let bytes = guard::BodyRange {
        offset: range.offset,
        length: None,
        last: false,
    };
    let body = guard::guarded(app, scope, id, bytes, body).await?;
    let stop = CancellationToken::new();
    let stop_when_dropped = stop.clone().drop_guard();
    let patience = app.config.server.idle_timeout;
    let request = PartRequest {
        app: app.clone(),
        id,
        part,
        range,
        body: BodyStream::new(body, stop, None, patience, CountRequests::default()),
        claim: Uuid::now_v7(),
    };
    // In a separate task, so that the claim is released when the request is dropped.
    let task = tokio::spawn(request.receive());
    let outcome = task.await.map_err(UploadError::Lost)?;
    drop(stop_when_dropped);
    outcome
}

fn where_it_lies(
    upload: &upload::Model,
    part: NewPart,
    now: Timestamp,
) -> Result<PartRange, UploadError> {
    let (UploadKind::Parts, Some(total), Some(chunk), Some(parts)) = (
        upload.kind,
        upload.total_size_bytes,
        upload.chunk_size_bytes,
        upload.total_parts,
    ) else {
        return Err(UploadError::NotFound);
    };
    let number = part.number;
    let range = range(total.unsigned_abs(), chunk.unsigned_abs(), number).ok_or(
        UploadError::NoSuchPart {
            number,
            total: parts.unsigned_abs(),
        },
    )?;
    let status = status_at(upload, now);
    if !accepts_bytes(status) {
        return Err(UploadError::Closed(status));
    }
    if part
        .content_length
        .is_some_and(|length| length != range.size)
    {
        let expected = range.size;
        return Err(UploadError::SizeMismatch { expected });
    }
    Ok(range)
}

/// The result of a claim.
enum PartClaim {
    Mine,
    /// The part has been received before.
    AlreadyCounted(Sha256Digest),
}

struct PartRequest {
    app: App,
    id: UploadId,
    part: NewPart,
    range: PartRange,
    body: BodyStream,
    /// Unique to this attempt; also names its segment.
    claim: Uuid,
}

impl PartRequest {
    async fn receive(mut self) -> Result<ReceivedPart, UploadError> {
        let sha256 = match self.claim().await? {
            PartClaim::AlreadyCounted(known) => self.compare(known).await?,
            PartClaim::Mine => match self.write().await {
                Ok(sha256) => sha256,
                Err(error) => {
                    self.release().await;
                    return Err(error);
                }
            },
        };
        Ok(ReceivedPart {
            number: self.part.number,
            size: self.range.size,
            sha256,
        })
    }

    async fn claim(&self) -> Result<PartClaim, UploadError> {
        let until = Instant::now() + ACQUIRE_TIMEOUT;
        loop {
            if self.try_claim().await? {
                return Ok(PartClaim::Mine);
            }
            let row = Entity::find_by_id((self.id, self.number()))
                .one(self.app.db.read())
                .await?;
            if let Some(digest) = row.and_then(|row| row.sha256?.parse().ok()) {
                return Ok(PartClaim::AlreadyCounted(digest));
            }
            if Instant::now() >= until || self.body.stop().is_cancelled() {
                return Err(UploadError::Locked);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    fn number(&self) -> i32 {
        i32::try_from(self.part.number).unwrap_or(i32::MAX)
    }

    async fn try_claim(&self) -> Result<bool, DbErr> {
        let (now, until) = (self.app.clock.now(), self.app.clock.after(LEASE));
        let row = Model {
            upload_id: self.id,
            part_number: self.number(),
            size_bytes: signed(self.range.size),
            sha256: None,
            attempt: None,
            staging_state: None,
            lease_owner: Some(self.claim.to_string()),
            lease_expires_at: Some(until),
            created_at: now,
        };
        let left_behind = Entity::update_many()
            .col_expr(Column::LeaseOwner, Expr::value(self.claim.to_string()))
            .col_expr(Column::LeaseExpiresAt, Expr::value(until))
            .filter(Column::UploadId.eq(self.id))
            .filter(Column::PartNumber.eq(self.number()))
            .filter(Column::Sha256.is_null())
            .filter(
                Column::LeaseExpiresAt
                    .is_null()
                    .or(Column::LeaseExpiresAt.lt(now)),
            );
        self.app
            .db
            .write(move |transaction| {
                Box::pin(async move {
                    let key = [Column::UploadId, Column::PartNumber];
                    let written = Entity::insert(row.into_active_model())
                        .on_conflict(OnConflict::columns(key).do_nothing().to_owned())
                        .exec_without_returning(transaction)
                        .await?;
                    Ok(written == 1 || left_behind.exec(transaction).await?.rows_affected == 1)
                })
            })
            .await
    }

    /// The row, as long as this request holds its claim.
    fn owned_claim(&self) -> UpdateMany<Entity> {
        Entity::update_many()
            .filter(Column::UploadId.eq(self.id))
            .filter(Column::PartNumber.eq(self.number()))
            .filter(Column::LeaseOwner.eq(self.claim.to_string()))
            .filter(Column::Sha256.is_null())
    }

    /// Hashes bytes that are sent again, without storing them.
    async fn compare(&mut self, known: Sha256Digest) -> Result<Sha256Digest, UploadError> {
        let options = WriteOptions {
            limit: self.range.size,
            expected: None,
            hashes: &[ChecksumAlgorithm::Sha256],
            running: None,
            holds: None,
        };
        let outcome = Staging::digest(self.body.stretch(), options).await;
        self.require_whole(&outcome)?;
        let expected = self.range.size;
        let staged = match outcome {
            Ok(staged) if staged.size == expected => staged,
            Ok(_) | Err(StagingError::TooLarge { .. }) => {
                return Err(UploadError::SizeMismatch { expected });
            }
            Err(error) => return Err(error.into()),
        };
        let found = self.check_digest(staged.hashes.sha256)?;
        if found == known {
            Ok(found)
        } else {
            Err(UploadError::PartConflict)
        }
    }

    async fn write(&mut self) -> Result<Sha256Digest, UploadError> {
        let staging = self.app.staging.clone();
        let stop = self.body.stop().clone();
        let PartRange { offset, size } = self.range;
        let key = StagingKey::segment(self.id.0, offset, SegmentWriter::Attempt(self.claim));
        let options = WriteOptions {
            limit: size,
            expected: self.part.content_length,
            hashes: &[ChecksumAlgorithm::Sha256],
            running: None,
            holds: None,
        };
        let (app, owned_claim) = (self.app.clone(), self.owned_claim());
        let work = staging.write_exactly(key, size, self.body.stretch(), options);
        let outcome = renewing(&stop, || renew(&app, &owned_claim), work).await;
        self.require_whole(&outcome)?;
        let sha256 = outcome?.hashes.sha256;
        failpoint!("parts.synced");
        let counted = match self.check_digest(sha256) {
            Ok(sha256) => self.count(sha256).await.map(|()| sha256),
            Err(error) => Err(error),
        };
        // After a database error the part may have been counted anyway.
        if let Err(error) = &counted
            && !matches!(error, UploadError::Database(_))
            && let Err(error) = staging.delete(&[key]).await
        {
            tracing::debug!(%key, %error, "a part that does not count is left to the sweep");
        }
        failpoint!("parts.counted");
        counted
    }

    /// A body that was interrupted must not be reported as one of the wrong size.
    fn require_whole<T>(&mut self, outcome: &Result<T, StagingError>) -> Result<(), UploadError> {
        match (self.body.ended(), outcome) {
            (StretchEnd::Broken(error), _) => Err(UploadError::ended_by(error)),
            (StretchEnd::Stalled, _) => Err(UploadError::Stalled),
            (StretchEnd::Stopped, _) => Err(UploadError::Preempted),
            (StretchEnd::Whole | StretchEnd::Due | StretchEnd::Paused, _) => Ok(()),
        }
    }

    fn check_digest(&self, found: Option<Sha256Digest>) -> Result<Sha256Digest, UploadError> {
        match (found, self.part.digest) {
            (Some(found), Some(declared)) if found != declared => Err(UploadError::DigestMismatch),
            (Some(found), _) => Ok(found),
            (None, _) => Err(UploadError::DigestMismatch),
        }
    }

    /// Counts the part with its digest. Nothing changes if the claim was lost or the upload was closed.
    async fn count(&self, sha256: Sha256Digest) -> Result<(), UploadError> {
        use upload::Column as Upload;
        let now = self.app.clock.now();
        let expires_at = self.app.clock.after(self.app.config.uploads.session_ttl);
        let part = self
            .owned_claim()
            .col_expr(Column::Sha256, Expr::value(sha256.to_string()))
            .col_expr(Column::Attempt, Expr::value(self.claim))
            .col_expr(Column::LeaseOwner, Expr::value(Option::<String>::None))
            .col_expr(
                Column::LeaseExpiresAt,
                Expr::value(Option::<Timestamp>::None),
            );
        let upload = open(self.id)
            .col_expr(Upload::Status, Expr::value(UploadStatus::InProgress))
            .col_expr(
                Upload::CompletedParts,
                Expr::col(Upload::CompletedParts).add(1),
            )
            .col_expr(
                Upload::BytesReceived,
                Expr::col(Upload::BytesReceived).add(signed(self.range.size)),
            )
            .col_expr(Upload::UpdatedAt, Expr::value(now))
            .col_expr(Upload::ExpiresAt, Expr::value(expires_at));
        self.app
            .db
            .write(move |transaction| {
                Box::pin(async move {
                    if part.exec(transaction).await?.rows_affected == 0 {
                        return Err(UploadError::Preempted);
                    }
                    match upload.exec(transaction).await?.rows_affected {
                        0 => Err(UploadError::Closed(UploadStatus::Aborted)),
                        _ => Ok(()),
                    }
                })
            })
            .await
    }

    /// Releases the claim. A claim that is not released expires.
    async fn release(&self) {
        let (id, number, claim) = (self.id, self.number(), self.claim.to_string());
        let deleted = self
            .app
            .db
            .write(move |transaction| {
                Box::pin(async move {
                    Entity::delete_many()
                        .filter(Column::UploadId.eq(id))
                        .filter(Column::PartNumber.eq(number))
                        .filter(Column::LeaseOwner.eq(claim))
                        .filter(Column::Sha256.is_null())
                        .exec(transaction)
                        .await
                        .map(drop)
                })
            })
            .await;
        if let Err::<(), DbErr>(error) = deleted {
            tracing::debug!(upload.id = %id, %error, "the claim of a part could not be released, it will expire");
        }
    }
}

/// Returns false when the claim has been lost.
async fn renew(app: &App, owned_claim: &UpdateMany<Entity>) -> Result<bool, DbErr> {
    let until = Expr::value(app.clock.after(LEASE));
    let update = owned_claim.clone().col_expr(Column::LeaseExpiresAt, until);
    app.db
        .write(move |transaction| {
            Box::pin(async move { Ok(update.exec(transaction).await?.rows_affected == 1) })
        })
        .await
}
