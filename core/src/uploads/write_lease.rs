//! The write lease of an upload: renewed while bytes are received, with a fence that outlives it.
//!
//! Each acquisition raises the fence, and every change by a writer is conditional on its fence: a writer that was
//! preempted, or outlived its lease, can no longer change anything. What it still writes goes to its own segment, which
//! no row lists. A writer whose client pauses yields the lease but keeps its fence: it continues if no other writer
//! came in the meantime, and a client that reconnects need not wait until its old connection is detected as dead.

use super::{
    UploadError, complete, create::stage_empty_segment, lease::LEASE, query::accepts_bytes,
};
use crate::{
    app::App,
    config::ByteSize,
    digest::Sha256State,
    files::segments,
    quota::{self, QuotaAddition, ReservationId, SharedReservation},
    staging::{SegmentWriter, StagingKey},
};
use entity::{
    Timestamp, UploadId,
    file::{self, FileStatus},
    upload::{Column, Entity, Model, UploadStatus},
    upload_segment,
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, IntoActiveModel, QueryFilter, UpdateMany,
    sea_query::Expr,
};

/// What happens to the lease after bytes were counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseAction {
    Keep,
    /// The client pauses, so another writer may take over.
    Yield,
    Release,
}

/// The exclusive right to write to an upload.
pub(super) struct WriteLease {
    pub(super) app: App,
    pub(super) upload: Model,
    /// The hash state of all bytes before the offset; `None` when it was not kept from the start, or is useless.
    pub(super) running: Option<Sha256State>,
    /// The quota reservation for an upload without a length.
    pub(super) reservation: Option<SharedReservation>,
    /// The segment this writer appends to; `None` before it has written.
    pub(super) segment: Option<OpenSegment>,
}

/// A segment that a single writer may append to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OpenSegment {
    pub(super) key: StagingKey,
    /// In bytes, all of them counted.
    pub(super) length: u64,
}

/// An upload that accepts bytes.
pub(super) fn open(id: UploadId) -> UpdateMany<Entity> {
    Entity::update_many()
        .filter(Column::Id.eq(id))
        .filter(Column::Status.is_in([UploadStatus::Init, UploadStatus::InProgress]))
}

/// Converts a size to the database's type; no real size exceeds it.
pub(super) fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn fence_of(key: StagingKey) -> Option<i64> {
    match key.writer() {
        Some(SegmentWriter::Fence(fence)) => Some(signed(fence)),
        _ => None,
    }
}

/// What a count changes besides the offset.
#[derive(Clone, Copy)]
struct CountUpdate {
    whole: bool,
    /// Bytes of an upload of deferred length, which count against the quota as they are received.
    received: Option<ReceivedBytes>,
    /// Whether the last segment belongs to another writer, which may not have noticed yet.
    may_grow: bool,
    now: Timestamp,
}

/// See [`CountUpdate::received`].
#[derive(Clone, Copy)]
struct ReceivedBytes {
    bytes: i64,
    reserved: Option<ReservationId>,
    quota: Option<ByteSize>,
}

impl ReceivedBytes {
    async fn count(
        self,
        transaction: &impl ConnectionTrait,
        upload: &Model,
        now: Timestamp,
    ) -> Result<(), UploadError> {
        let addition = QuotaAddition {
            owner: upload.owner.as_deref(),
            id: upload.id.0,
            bytes: self.bytes,
            quota: self.quota,
            reserved: self.reserved,
            now,
        };
        quota::add(transaction, addition).await?;
        set_length(transaction, upload, upload.bytes_received).await
    }
}

/// Counts a file whose length becomes known.
pub(super) async fn set_length(
    transaction: &impl ConnectionTrait,
    upload: &Model,
    length: i64,
) -> Result<(), UploadError> {
    file::Entity::update_many()
        .col_expr(file::Column::SizeBytes, Expr::value(length))
        .filter(file::Column::Id.eq(upload.file_id))
        .filter(file::Column::Status.eq(FileStatus::Uploading))
        .exec(transaction)
        .await?;
    Ok(())
}

async fn count(
    transaction: &impl ConnectionTrait,
    update: UpdateMany<Entity>,
    before: Option<upload_segment::Model>,
    counted: CountUpdate,
) -> Result<(Model, Option<complete::StagedFile>), UploadError> {
    let rows = update.exec_with_returning(transaction).await?;
    let upload = rows.into_iter().next().ok_or(UploadError::Preempted)?;
    if let Some(before) = before {
        upload_segment::Entity::insert(before.into_active_model())
            .exec_without_returning(transaction)
            .await?;
    }
    if let Some(received) = counted.received {
        received.count(transaction, &upload, counted.now).await?;
    }
    if !counted.whole {
        return Ok((upload, None));
    }
    complete::completed(transaction, upload, counted.may_grow, counted.now).await
}

impl WriteLease {
    /// Returns the segment to append to and its length: a new one, unless this writer has one.
    pub(super) fn segment(&self) -> OpenSegment {
        self.segment.unwrap_or_else(|| OpenSegment {
            key: StagingKey::segment(
                self.upload.id.0,
                self.offset(),
                SegmentWriter::Fence(self.upload.fence.unsigned_abs()),
            ),
            length: 0,
        })
    }

    /// All bytes before this offset are durable and counted.
    pub(super) fn offset(&self) -> u64 {
        self.upload.bytes_received.unsigned_abs()
    }

    /// How many more bytes the upload accepts.
    pub(super) fn room(&self) -> u64 {
        let most = self.app.config.uploads.max_file_size.0;
        let end = self.upload.total_size_bytes.map_or(most, i64::unsigned_abs);
        end.saturating_sub(self.offset())
    }

    fn owned(&self) -> UpdateMany<Entity> {
        open(self.upload.id).filter(Column::Fence.eq(self.upload.fence))
    }

    /// Counts the first `length` bytes of [`Self::segment`], which must be durable, and completes the upload when it
    /// has all its bytes; with `last`, it is complete and its length is what was received.
    ///
    /// # Errors
    /// [`UploadError::Preempted`] when another writer has acquired the upload; nothing is changed then.
    pub(super) async fn advance(
        &mut self,
        length: u64,
        last: bool,
        action: LeaseAction,
    ) -> Result<(), UploadError> {
        let now = self.app.clock.now();
        let segment = OpenSegment {
            length,
            ..self.segment()
        };
        let to = signed(segment.key.start() + length);
        let total = match (self.upload.total_size_bytes, last) {
            (None, true) => Some(to),
            (known, _) => known,
        };
        let whole = total == Some(to);
        if whole && to == 0 {
            // A file needs a segment, even an empty one.
            stage_empty_segment(&self.app, segment.key).await?;
        }
        let wrote = self.segment.is_some() || length > 0 || (whole && to == 0);
        let update = self.count(segment, total, wrote, action, now);
        let before = match wrote {
            true => self.finished_by(segment),
            false => None,
        };
        let counted = CountUpdate {
            whole,
            received: self.received(to),
            may_grow: !wrote,
            now,
        };
        let (upload, staged) = self
            .app
            .db
            .write(move |transaction| {
                Box::pin(async move { count(transaction, update, before, counted).await })
            })
            .await?;
        self.upload = upload;
        self.segment = wrote.then_some(segment);
        if let Some(staged) = staged {
            complete::push(&self.app, staged).await;
        }
        Ok(())
    }

    fn received(&self, to: i64) -> Option<ReceivedBytes> {
        let bytes = to.saturating_sub(self.upload.bytes_received);
        if self.upload.total_size_bytes.is_some() || bytes == 0 {
            return None;
        }
        let reserved = self.reservation.as_ref().map(SharedReservation::id);
        let quota = self.app.config.uploads.owner_quota;
        Some(ReceivedBytes {
            bytes,
            reserved,
            quota,
        })
    }

    fn count(
        &self,
        segment: OpenSegment,
        total: Option<i64>,
        wrote: bool,
        action: LeaseAction,
        now: Timestamp,
    ) -> UpdateMany<Entity> {
        let clock = &self.app.clock;
        let to = signed(segment.key.start() + segment.length);
        let (status, lease) = match total == Some(to) {
            true => (UploadStatus::Complete, None),
            false => (UploadStatus::InProgress, self.lease(action, now)),
        };
        let expires_at = clock.after(self.app.config.uploads.session_ttl);
        let state = self.running.as_ref().map(Sha256State::state);
        let update = self
            .owned()
            .filter(Column::BytesReceived.eq(self.upload.bytes_received))
            .col_expr(Column::Status, Expr::value(status))
            .col_expr(Column::BytesReceived, Expr::value(to))
            .col_expr(Column::HashState, Expr::value(state))
            .col_expr(Column::TotalSizeBytes, Expr::value(total))
            .col_expr(Column::LeaseExpiresAt, Expr::value(lease))
            .col_expr(Column::UpdatedAt, Expr::value(now))
            .col_expr(Column::ExpiresAt, Expr::value(expires_at));
        if !wrote {
            return update;
        }
        let start = signed(segment.key.start());
        update
            .col_expr(Column::SegmentStart, Expr::value(start))
            .col_expr(Column::SegmentFence, Expr::value(fence_of(segment.key)))
    }

    /// When this segment is new, returns the previous one, which ends where it starts, to be recorded in
    /// `upload_segments`.
    fn finished_by(&self, segment: OpenSegment) -> Option<upload_segment::Model> {
        let last = segments::last(&self.upload)?;
        if last.key == segment.key || last.size == 0 {
            return None;
        }
        Some(upload_segment::Model {
            upload_id: self.upload.id,
            start_byte: signed(last.key.start()),
            fence: fence_of(last.key),
            length_bytes: signed(last.size),
        })
    }

    /// Deletes the segment that this writer has started, if no row lists it. Bytes that are kept stay reserved in the
    /// owner's quota.
    pub(super) async fn discard(&self) {
        if self.segment.is_some() {
            return self.keep_room().await;
        }
        let key = self.segment().key;
        if let Err(error) = self.app.staging.delete(&[key]).await {
            tracing::debug!(upload.id = %self.upload.id, %error, "a segment is left to the sweep");
            self.keep_room().await;
        }
    }

    /// Leaves what is reserved to end by itself, for bytes that are staged and perhaps not counted.
    pub(super) async fn keep_room(&self) {
        if let Some(reservation) = &self.reservation {
            reservation.leave_to_expire().await;
        }
    }

    /// Lets the next writer of this process continue the segment. Must be called after everything written is counted
    /// and nothing more will be written.
    pub(super) fn leave_segment(&self) {
        if let Some(segment) = self.segment
            && accepts_bytes(self.upload.status)
        {
            self.app.uploads.writers().ended(&self.upload, segment);
        }
    }

    fn lease(&self, action: LeaseAction, now: Timestamp) -> Option<Timestamp> {
        match action {
            LeaseAction::Keep => Some(self.app.clock.after(LEASE)),
            LeaseAction::Yield => Some(now),
            LeaseAction::Release => None,
        }
    }

    /// Renews the lease, also after [`LeaseAction::Yield`], or releases it. Returns false when another writer has the
    /// upload.
    pub(super) async fn set_lease(&self, action: LeaseAction) -> Result<bool, DbErr> {
        let update = self.owned().col_expr(
            Column::LeaseExpiresAt,
            Expr::value(self.lease(action, self.app.clock.now())),
        );
        self.app
            .db
            .write(move |transaction| {
                Box::pin(async move { Ok(update.exec(transaction).await?.rows_affected == 1) })
            })
            .await
    }

    /// Whether no other writer has acquired the upload.
    pub(super) async fn is_held(&self, db: &impl ConnectionTrait) -> Result<bool, DbErr> {
        let found = Entity::find_by_id(self.upload.id).one(db).await?;
        Ok(found.is_some_and(|now| now.fence == self.upload.fence && accepts_bytes(now.status)))
    }
}
