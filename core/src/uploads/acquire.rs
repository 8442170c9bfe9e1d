//! Acquires the write lease of an upload: one compare-and-set on its offset, after requests that waiting cannot help
//! are rejected.

use super::{
    Append, UploadError, concat,
    lease::{ACQUIRE_TIMEOUT, LEASE, POLL_INTERVAL},
    query::{accepts_bytes, get, status_at},
    write_lease::{WriteLease, open, set_length, signed},
};
use crate::{
    app::App,
    digest::Sha256State,
    failpoint,
    files::OwnerScope,
    quota::{self, QuotaAddition, Reservation, SharedReservation},
};
use entity::{
    Timestamp, UploadId,
    upload::{Column, Model, UploadKind, UploadStatus},
};
use sea_orm::{
    ColumnTrait, QueryFilter,
    sea_query::{Expr, ExprTrait},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The result of an attempt to acquire the lease.
pub(super) enum AcquireOutcome {
    Held(Box<WriteLease>),
    /// The upload is complete and ends at the requested offset: the response to the last append was lost.
    Complete(Box<Model>),
}

/// Acquires the lease of an upload at an offset, setting its length if given. Waits for another writer for a while.
pub(super) async fn acquire(
    app: &App,
    scope: &OwnerScope,
    id: UploadId,
    request: &Append,
    stop: &CancellationToken,
) -> Result<AcquireOutcome, UploadError> {
    let until = Instant::now() + ACQUIRE_TIMEOUT;
    loop {
        let upload = get(app.db.read(), scope, id).await?;
        let now = app.clock.now();
        let at_work = upload.lease_expires_at.is_some_and(|lease| lease > now);
        match judge(&upload, request, app.config.uploads.max_file_size.0, now)? {
            OffsetCheck::Past => return Ok(AcquireOutcome::Complete(Box::new(upload))),
            OffsetCheck::Ahead if !at_work => return Err(wrong_offset(&upload, request)),
            OffsetCheck::Right if !at_work => {
                if let Some(upload) = try_acquire(app, id, request).await? {
                    failpoint!("uploads.acquired");
                    let reservation = reservation(app, &upload);
                    let app = app.clone();
                    let lease = WriteLease {
                        running: running(&upload),
                        segment: app.uploads.writers().take_segment(&upload),
                        app,
                        upload,
                        reservation,
                    };
                    return Ok(AcquireOutcome::Held(Box::new(lease)));
                }
            }
            OffsetCheck::Ahead | OffsetCheck::Right => {}
        }
        if Instant::now() >= until || stop.is_cancelled() {
            return Err(UploadError::Locked);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Whether the request can continue the upload, and no writer is active.
///
/// # Errors
/// Errors that waiting cannot resolve.
pub(super) fn is_next(app: &App, upload: &Model, request: &Append) -> Result<bool, UploadError> {
    let (now, most) = (app.clock.now(), app.config.uploads.max_file_size.0);
    let next = judge(upload, request, most, now)?;
    let at_work = upload.lease_expires_at.is_some_and(|lease| lease > now);
    Ok(matches!(next, OffsetCheck::Right) && !at_work)
}

/// Partial uploads are concatenated in an order that is not known yet, so their hash states would be useless.
fn running(upload: &Model) -> Option<Sha256State> {
    match (&upload.hash_state, upload.kind) {
        (_, kind) if kind != UploadKind::Append => None,
        (Some(state), _) => Sha256State::from_state(state).ok(),
        (None, _) if upload.bytes_received == 0 => Some(Sha256State::default()),
        (None, _) => None,
    }
}

/// If the length is known, all bytes were counted when it was set.
fn reservation(app: &App, upload: &Model) -> Option<SharedReservation> {
    if upload.total_size_bytes.is_some() {
        return None;
    }
    Reservation::new(app, upload.owner.as_deref()).map(Into::into)
}

/// Where a request wants to continue.
enum OffsetCheck {
    Right,
    /// Beyond the counted bytes, which an active writer may be about to change.
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

/// Rejects requests that waiting cannot help.
fn judge(
    upload: &Model,
    request: &Append,
    most: u64,
    now: Timestamp,
) -> Result<OffsetCheck, UploadError> {
    match upload.kind {
        UploadKind::Parts => return Err(UploadError::NotFound),
        UploadKind::Final => return Err(UploadError::Joined),
        UploadKind::Append | UploadKind::Partial => {}
    }
    let offset = upload.bytes_received.unsigned_abs();
    match status_at(upload, now) {
        UploadStatus::Complete if request.offset == offset => return Ok(OffsetCheck::Past),
        UploadStatus::Complete => return Err(wrong_offset(upload, request)),
        status if !accepts_bytes(status) => return Err(UploadError::Closed(status)),
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
        at if at > offset => Ok(OffsetCheck::Ahead),
        _ if end > limit => Err(UploadError::TooLarge { limit }),
        _ => Ok(OffsetCheck::Right),
    }
}

async fn try_acquire(
    app: &App,
    id: UploadId,
    request: &Append,
) -> Result<Option<Model>, UploadError> {
    let (now, until) = (app.clock.now(), app.clock.after(LEASE));
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
    let config = &app.config.uploads;
    let (length, quota, most) = (request.length, config.owner_quota, config.max_file_size.0);
    app.db
        .write(move |transaction| {
            Box::pin(async move {
                let rows = update.exec_with_returning(transaction).await?;
                let taken = rows.into_iter().next();
                if let (Some(upload), Some(length)) = (&taken, length) {
                    concat::length_known(transaction, upload, most).await?;
                    let addition = QuotaAddition {
                        owner: upload.owner.as_deref(),
                        id: upload.id.0,
                        // Bytes received before the length was known are counted already.
                        bytes: signed(length).saturating_sub(upload.bytes_received),
                        quota,
                        reserved: None,
                        now,
                    };
                    quota::add(transaction, addition).await?;
                    set_length(transaction, upload, signed(length)).await?;
                }
                Ok(taken)
            })
        })
        .await
}
