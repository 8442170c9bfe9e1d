//! A writer's hold on an upload: a lease that is renewed while bytes flow, and a fence that outlives it.
//!
//! Each taker raises the fence, and every change a writer makes names its own: one that was pre-empted, or slept
//! through its lease, changes nothing any more. A writer whose client pauses lets go of the lease but keeps the fence:
//! it goes on if nobody came meanwhile, and a client that comes back over a new connection need not wait for the old
//! one to be noticed dead.

use super::{
    Append, UploadError, concat, finish,
    lease::{LEASE, LOOK_EVERY, WAIT},
    query::{get, is_open, status_at},
};
use crate::{
    config::ByteSize, context::Landfall, digest::RunningHash, files::Scope, staging::StagingKey,
    usage,
};
use entity::{
    Timestamp, UploadId,
    file::{self, FileStatus},
    upload::{Column, Entity, Model, UploadKind, UploadStatus},
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, UpdateMany,
    sea_query::{Expr, ExprTrait},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What became of an attempt to take an upload.
pub(super) enum Taken {
    Held(Box<Hold>),
    /// It is complete, and ends where the caller wanted to go on: its last answer was lost.
    Done(Box<Model>),
}

/// What happens to the lease when bytes have been counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    GoOn,
    /// The client pauses: whoever comes may take over.
    Yield,
    Release,
}

/// The right to write to an upload.
pub(super) struct Hold {
    pub(super) landfall: Landfall,
    pub(super) upload: Model,
    /// Of all bytes before the offset; none when it was not kept from the first on, or is of no use.
    pub(super) running: Option<RunningHash>,
    /// Where an upload without a length must end by its owner's quota, in bytes.
    end: Option<u64>,
}

/// Takes an upload at an offset, and sets its length if that is given; waits for another writer a while.
pub(super) async fn take(
    landfall: &Landfall,
    scope: &Scope,
    id: UploadId,
    request: &Append,
    stop: &CancellationToken,
) -> Result<Taken, UploadError> {
    let until = Instant::now() + WAIT;
    loop {
        let upload = get(landfall.db.read(), scope, id).await?;
        let now = landfall.clock.now();
        let at_work = upload.lease_expires_at.is_some_and(|lease| lease > now);
        match judge(
            &upload,
            request,
            landfall.config.uploads.max_file_size.0,
            now,
        )? {
            Offset::Past => return Ok(Taken::Done(Box::new(upload))),
            Offset::Ahead if !at_work => return Err(wrong_offset(&upload, request)),
            Offset::Right if !at_work => {
                if let Some(upload) = try_take(landfall, id, request).await? {
                    let end = end_by_quota(landfall, &upload).await?;
                    let landfall = landfall.clone();
                    let hold = Hold {
                        landfall,
                        running: running(&upload),
                        upload,
                        end,
                    };
                    return Ok(Taken::Held(Box::new(hold)));
                }
            }
            Offset::Ahead | Offset::Right => {}
        }
        if Instant::now() >= until || stop.is_cancelled() {
            return Err(UploadError::Locked);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// True when the request may go on where the upload is, and nobody is at work on it.
///
/// # Errors
/// What no waiting changes.
pub(super) fn is_next(
    landfall: &Landfall,
    upload: &Model,
    request: &Append,
) -> Result<bool, UploadError> {
    let (now, most) = (
        landfall.clock.now(),
        landfall.config.uploads.max_file_size.0,
    );
    let next = judge(upload, request, most, now)?;
    let at_work = upload.lease_expires_at.is_some_and(|lease| lease > now);
    Ok(matches!(next, Offset::Right) && !at_work)
}

/// Partial uploads are joined in an order that is not known yet, so their hashes would be of no use.
fn running(upload: &Model) -> Option<RunningHash> {
    match (&upload.hash_state, upload.kind) {
        (_, kind) if kind != UploadKind::Append => None,
        (Some(state), _) => RunningHash::from_state(state).ok(),
        (None, _) if upload.bytes_received == 0 => Some(RunningHash::default()),
        (None, _) => None,
    }
}

async fn end_by_quota(landfall: &Landfall, upload: &Model) -> Result<Option<u64>, DbErr> {
    if upload.total_size_bytes.is_some() {
        return Ok(None);
    }
    let quota = landfall.config.uploads.owner_quota;
    usage::room(landfall.db.read(), upload.owner.as_deref(), quota).await
}

/// Where a request wants to go on.
enum Offset {
    Right,
    /// Beyond what is counted, which a writer at work may be about to change.
    Ahead,
    /// At the end of a complete upload.
    Past,
}

fn wrong_offset(upload: &Model, request: &Append) -> UploadError {
    UploadError::WrongOffset {
        expected: upload.bytes_received.unsigned_abs(),
        provided: request.offset,
    }
}

/// What no waiting changes is answered at once.
fn judge(
    upload: &Model,
    request: &Append,
    most: u64,
    now: Timestamp,
) -> Result<Offset, UploadError> {
    match upload.kind {
        UploadKind::Parts => return Err(UploadError::NotFound),
        UploadKind::Final => return Err(UploadError::Joined),
        UploadKind::Append | UploadKind::Partial => {}
    }
    let offset = upload.bytes_received.unsigned_abs();
    match status_at(upload, now) {
        UploadStatus::Complete if request.offset == offset => return Ok(Offset::Past),
        UploadStatus::Complete => return Err(wrong_offset(upload, request)),
        status if !is_open(status) => return Err(UploadError::Closed(status)),
        _ if request.offset < offset => return Err(wrong_offset(upload, request)),
        _ => {}
    }
    let known = upload.total_size_bytes.map(i64::unsigned_abs);
    if let Some(given) = request.length {
        if known.is_some() || given < offset {
            return Err(UploadError::LengthFixed {
                known,
                offset,
                given,
            });
        }
        if given > most {
            return Err(UploadError::TooLarge { limit: most });
        }
    }
    let limit = known.or(request.length).unwrap_or(most);
    let end = request
        .offset
        .saturating_add(request.content_length.unwrap_or(0));
    match request.offset {
        at if at > offset => Ok(Offset::Ahead),
        _ if end > limit => Err(UploadError::TooLarge { limit }),
        _ => Ok(Offset::Right),
    }
}

async fn try_take(
    landfall: &Landfall,
    id: UploadId,
    request: &Append,
) -> Result<Option<Model>, UploadError> {
    let (now, until) = (landfall.clock.now(), landfall.clock.after(LEASE));
    let mut update = open(id)
        .col_expr(Column::Fence, Expr::col(Column::Fence).add(1))
        .col_expr(Column::Status, Expr::value(UploadStatus::InProgress))
        .col_expr(Column::LeaseExpiresAt, Expr::value(until))
        .col_expr(Column::UpdatedAt, Expr::value(now))
        .filter(Column::BytesReceived.eq(signed(request.offset)))
        .filter(
            Column::LeaseExpiresAt
                .is_null()
                .or(Column::LeaseExpiresAt.lte(now)),
        );
    if let Some(length) = request.length {
        update = update
            .col_expr(Column::TotalSizeBytes, Expr::value(signed(length)))
            .filter(Column::TotalSizeBytes.is_null());
    }
    let config = &landfall.config.uploads;
    let (length, quota, most) = (request.length, config.owner_quota, config.max_file_size.0);
    landfall
        .db
        .write(move |transaction| {
            Box::pin(async move {
                let rows = update.exec_with_returning(transaction).await?;
                let taken = rows.into_iter().next();
                if let (Some(upload), Some(length)) = (&taken, length) {
                    concat::length_known(transaction, upload, most).await?;
                    count_length(transaction, upload, signed(length), quota).await?;
                }
                Ok(taken)
            })
        })
        .await
}

/// The length that had been deferred is known now, and counts.
async fn count_length(
    transaction: &impl ConnectionTrait,
    upload: &Model,
    length: i64,
    quota: Option<ByteSize>,
) -> Result<(), UploadError> {
    usage::add(
        transaction,
        upload.owner.as_deref(),
        upload.id.0,
        length,
        quota,
    )
    .await?;
    file::Entity::update_many()
        .col_expr(file::Column::SizeBytes, Expr::value(length))
        .filter(file::Column::Id.eq(upload.file_id))
        .filter(file::Column::Status.eq(FileStatus::Uploading))
        .exec(transaction)
        .await?;
    Ok(())
}

/// An upload that takes bytes.
pub(super) fn open(id: UploadId) -> UpdateMany<Entity> {
    Entity::update_many()
        .filter(Column::Id.eq(id))
        .filter(Column::Status.is_in([UploadStatus::Init, UploadStatus::InProgress]))
}

/// As the database counts; nothing is so long that it does not fit.
pub(super) fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

impl Hold {
    pub(super) fn key(&self) -> StagingKey {
        StagingKey::unsegmented(self.upload.id.0)
    }

    /// All bytes before it are durable and counted.
    pub(super) fn offset(&self) -> u64 {
        self.upload.bytes_received.unsigned_abs()
    }

    /// How many bytes may still come.
    pub(super) fn room(&self) -> u64 {
        let most = self.landfall.config.uploads.max_file_size.0;
        let most = std::cmp::min(most, self.end.unwrap_or(most));
        let end = self.upload.total_size_bytes.map_or(most, i64::unsigned_abs);
        end.saturating_sub(self.offset())
    }

    fn mine(&self) -> UpdateMany<Entity> {
        open(self.upload.id).filter(Column::Fence.eq(self.upload.fence))
    }

    /// Counts what is durable now, and completes the upload when that is all of it; with `last`, it is, and the
    /// length is what came.
    ///
    /// # Errors
    /// [`UploadError::Preempted`] when somebody else has the upload: nothing is changed then.
    pub(super) async fn advance(
        &mut self,
        to: u64,
        last: bool,
        then: Then,
    ) -> Result<(), UploadError> {
        let now = self.landfall.clock.now();
        let total = match (self.upload.total_size_bytes, last) {
            (None, true) => Some(signed(to)),
            (known, _) => known,
        };
        let expires_at = self
            .landfall
            .clock
            .after(self.landfall.config.uploads.session_ttl);
        let whole = total == Some(signed(to));
        let status = match whole {
            true => UploadStatus::Complete,
            false => UploadStatus::InProgress,
        };
        let lease = match whole {
            true => None,
            false => self.lease(then, now),
        };
        let update = self
            .mine()
            .filter(Column::BytesReceived.eq(self.upload.bytes_received))
            .col_expr(Column::Status, Expr::value(status))
            .col_expr(Column::BytesReceived, Expr::value(signed(to)))
            .col_expr(
                Column::HashState,
                Expr::value(self.running.as_ref().map(RunningHash::state)),
            )
            .col_expr(Column::TotalSizeBytes, Expr::value(total))
            .col_expr(Column::LeaseExpiresAt, Expr::value(lease))
            .col_expr(Column::UpdatedAt, Expr::value(now))
            .col_expr(Column::ExpiresAt, Expr::value(expires_at));
        // A file's own length counts when it is staged.
        let counts_now =
            self.upload.kind == UploadKind::Partial && self.upload.total_size_bytes.is_none();
        let (upload, staged) = self
            .landfall
            .db
            .write(move |transaction| {
                Box::pin(async move {
                    let rows = update.exec_with_returning(transaction).await?;
                    let upload = rows.into_iter().next().ok_or(UploadError::Preempted)?;
                    if whole && counts_now {
                        let (owner, id) = (upload.owner.as_deref(), upload.id.0);
                        usage::change(transaction, owner, id, signed(to)).await?;
                    }
                    if whole {
                        finish::completed(transaction, upload, now).await
                    } else {
                        Ok((upload, None))
                    }
                })
            })
            .await?;
        self.upload = upload;
        if let Some(staged) = staged {
            finish::push(&self.landfall, staged).await;
        }
        Ok(())
    }

    fn lease(&self, then: Then, now: Timestamp) -> Option<Timestamp> {
        match then {
            Then::GoOn => Some(self.landfall.clock.after(LEASE)),
            Then::Yield => Some(now),
            Then::Release => None,
        }
    }

    /// Takes the lease back after [`Then::Yield`], or lets go of it; false when somebody else has the upload.
    pub(super) async fn set_lease(&self, then: Then) -> Result<bool, DbErr> {
        let update = self.mine().col_expr(
            Column::LeaseExpiresAt,
            Expr::value(self.lease(then, self.landfall.clock.now())),
        );
        self.landfall
            .db
            .write(move |transaction| {
                Box::pin(async move { Ok(update.exec(transaction).await?.rows_affected == 1) })
            })
            .await
    }

    /// True while nobody else has the upload.
    pub(super) async fn is_mine(&self, db: &impl ConnectionTrait) -> Result<bool, DbErr> {
        let found = Entity::find_by_id(self.upload.id).one(db).await?;
        Ok(found.is_some_and(|now| now.fence == self.upload.fence && is_open(now.status)))
    }
}
