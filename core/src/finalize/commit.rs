//! The end of a finalize run: stored, failed or rescheduled. Each is one transaction, fenced by the lease; commits of
//! several files share one.

use super::{claim::Claimant, key_owners};
use crate::{
    batcher::ClassifyError,
    batches::{self, FileOutcome},
    outbox::{self, FileStored, NewEvent, WrittenEvent},
    quota,
    storage::StorageKey,
    transfer::StoredObject,
};
use entity::{
    BatchId, FileId, Timestamp,
    file::{Column, Entity, FileStatus, Model},
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, UpdateMany,
    sea_query::{CaseStatement, Expr, ExprTrait, SimpleExpr},
};
use std::{collections::BTreeMap, sync::Arc};

#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// Another worker holds the lease; nothing was changed.
    #[error("the lease was lost")]
    LeaseLost,
    #[error("the outcome could not be recorded")]
    Database(#[from] DbErr),
    #[error("the outcome could not be announced")]
    Outbox(#[from] outbox::WriteError),
}

impl ClassifyError for CommitError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Database(error) | Self::Outbox(outbox::WriteError::Database(error)) => {
                error.is_transient()
            }
            Self::LeaseLost | Self::Outbox(_) => false,
        }
    }
}

/// Why a file failed permanently, as shown to its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PermanentFailure {
    pub(super) code: &'static str,
    pub(super) message: String,
}

/// An object that is complete and verified, but not committed yet.
#[derive(Clone, Debug)]
pub(super) struct VerifiedObject {
    pub(super) object: StoredObject,
    /// When the object was verified.
    pub(super) at: Timestamp,
    /// The media type determined from the declared type and the bytes.
    pub(super) content_type: String,
    /// The URL of the object, for the event.
    pub(super) url: String,
}

/// A file whose object is in storage and that is to be committed.
#[derive(Clone, Debug)]
pub(super) struct CommitRequest {
    pub(super) file: Model,
    pub(super) key: StorageKey,
    pub(super) transferred: VerifiedObject,
}

/// Marks the files as stored, writes their events and counts them in their batches, all or nothing. Returns the written
/// events of each file, in the order of the files.
///
/// # Errors
/// [`CommitError`]; [`CommitError::LeaseLost`] when the claimant no longer holds one of them.
pub(super) async fn store(
    transaction: &impl ConnectionTrait,
    claimant: &Claimant,
    requests: &[Arc<CommitRequest>],
    now: Timestamp,
) -> Result<Vec<Vec<WrittenEvent>>, CommitError> {
    if claimant.overwrite {
        let mut keys = Vec::with_capacity(requests.len());
        for one in requests {
            keys.push((one.key.clone(), one.file.id));
        }
        key_owners::transfer_answered(transaction, keys, now).await?;
    }
    let each = |value: &dyn Fn(&VerifiedObject) -> SimpleExpr| -> SimpleExpr {
        requests
            .iter()
            .fold(CaseStatement::new(), |case, one| {
                case.case(Column::Id.eq(one.file.id), value(&one.transferred))
            })
            .into()
    };
    let update = owned_by(&claimant.worker, requests.iter().map(|one| one.file.id))
        .col_expr(Column::Status, Expr::value(FileStatus::Stored))
        .col_expr(
            Column::ContentType,
            each(&|transferred| Expr::val(&transferred.content_type)),
        )
        .col_expr(
            Column::Sha256,
            each(&|transferred| Expr::val(transferred.object.sha256.to_string())),
        )
        .col_expr(
            Column::LandedAt,
            each(&|transferred| Expr::val(transferred.at)),
        )
        .col_expr(Column::StagingKey, Expr::value(Option::<String>::None))
        .col_expr(Column::FirstFaultAt, Expr::value(Option::<Timestamp>::None))
        .col_expr(Column::StoredAt, Expr::value(now));
    batches::lock(
        transaction,
        requests.iter().filter_map(|one| one.file.batch_id),
    )
    .await?;
    change(transaction, release(update, now), requests.len()).await?;
    let events = requests.iter().map(|one| {
        let payload = FileStored::from_model(
            &one.file,
            one.transferred.object.sha256,
            one.transferred.url.clone(),
        );
        NewEvent::file_stored(payload, &one.file)
    });
    let written = outbox::write_all(transaction, now, events.collect()).await?;
    let mut written: Vec<Vec<WrittenEvent>> = written.into_iter().map(|one| vec![one]).collect();
    let mut in_batches: BTreeMap<BatchId, (i64, usize)> = BTreeMap::new();
    for (place, one) in requests.iter().enumerate() {
        if let Some(batch) = one.file.batch_id {
            in_batches.entry(batch).or_insert((0, place)).0 += 1;
        }
    }
    for (batch, (files, place)) in in_batches {
        let settled = FileOutcome::Stored;
        written[place].extend(batches::settle_some(transaction, batch, settled, files, now).await?);
    }
    Ok(written)
}

/// Marks the file as failed. Nothing announces this except the completion of its batch. The bytes are kept until
/// `retryable_until`.
///
/// # Errors
/// [`CommitError`].
pub(super) async fn fail(
    transaction: &impl ConnectionTrait,
    file: &Model,
    worker: &str,
    failure: &PermanentFailure,
    now: Timestamp,
    retryable_until: Timestamp,
) -> Result<Vec<WrittenEvent>, CommitError> {
    let written = match file.batch_id {
        Some(batch) => batches::settle(transaction, batch, FileOutcome::Failed, now).await?,
        None => None,
    };
    quota::release(transaction, file).await?;
    let kept = file.staging_key.as_ref().map(|_| retryable_until);
    let update = owned_by(worker, [file.id])
        .col_expr(Column::Status, Expr::value(FileStatus::Failed))
        .col_expr(Column::ErrorCode, Expr::value(failure.code))
        .col_expr(Column::ErrorMessage, Expr::value(&failure.message))
        .col_expr(Column::RetryableUntil, Expr::value(kept));
    change(transaction, release(update, now), 1).await?;
    Ok(written.into_iter().collect())
}

/// Stages the file again, due at `at`, after a transient fault. Its bytes stay in place. With `key` it gets another
/// storage key.
///
/// # Errors
/// [`CommitError`].
pub(super) async fn reschedule(
    transaction: &impl ConnectionTrait,
    file: &Model,
    worker: &str,
    key: Option<StorageKey>,
    at: Timestamp,
    now: Timestamp,
) -> Result<(), CommitError> {
    let mut update = owned_by(worker, [file.id])
        .col_expr(Column::Status, Expr::value(FileStatus::Staged))
        .col_expr(
            Column::FinalizeAttempts,
            Expr::col(Column::FinalizeAttempts).add(1),
        )
        .col_expr(
            Column::FirstFaultAt,
            Expr::value(file.first_fault_at.unwrap_or(now)),
        )
        .col_expr(Column::NextAttemptAt, Expr::value(at));
    if let Some(key) = key {
        update = update.col_expr(Column::StorageKey, Expr::value(key.as_str()));
    }
    change(transaction, release(update, now), 1).await
}

/// With `file_overwrite`, records that every request of the transfer to the key was answered.
///
/// # Errors
/// Database errors.
pub(super) async fn settle_key(
    transaction: &impl ConnectionTrait,
    key: Option<(StorageKey, FileId)>,
    now: Timestamp,
) -> Result<(), DbErr> {
    key_owners::transfer_answered(transaction, key.into_iter().collect(), now).await
}

/// Releases all claims of `worker`, or its claim of one file. The files are staged again, and nothing counts against
/// them. Returns the released files.
///
/// # Errors
/// Database errors.
pub(super) async fn release_claims(
    transaction: &impl ConnectionTrait,
    worker: &str,
    only: Option<FileId>,
    now: Timestamp,
) -> Result<Vec<FileId>, DbErr> {
    let mut update = end_lease(Entity::update_many(), now)
        .col_expr(Column::Status, Expr::value(FileStatus::Staged))
        .filter(Column::Status.eq(FileStatus::Finalizing))
        .filter(Column::LeaseOwner.eq(worker));
    if let Some(id) = only {
        update = update.filter(Column::Id.eq(id));
    }
    let released = update.exec_with_returning(transaction).await?;
    Ok(released.into_iter().map(|file| file.id).collect())
}

fn owned_by(worker: &str, ids: impl IntoIterator<Item = FileId>) -> UpdateMany<Entity> {
    Entity::update_many()
        .filter(Column::Id.is_in(ids))
        .filter(Column::Status.eq(FileStatus::Finalizing))
        .filter(Column::LeaseOwner.eq(worker))
}

/// The run has ended, so the file did not kill its worker: this clears the suspicion.
fn release(update: UpdateMany<Entity>, now: Timestamp) -> UpdateMany<Entity> {
    end_lease(update, now).col_expr(Column::SuspectSince, Expr::value(Option::<Timestamp>::None))
}

fn end_lease(update: UpdateMany<Entity>, now: Timestamp) -> UpdateMany<Entity> {
    update
        .col_expr(Column::LeaseOwner, Expr::value(Option::<String>::None))
        .col_expr(
            Column::LeaseExpiresAt,
            Expr::value(Option::<Timestamp>::None),
        )
        .col_expr(
            Column::OwnerMissedAt,
            Expr::value(Option::<Timestamp>::None),
        )
        .col_expr(Column::AloneDeaths, Expr::value(0))
        .col_expr(Column::UpdatedAt, Expr::value(now))
}

async fn change(
    transaction: &impl ConnectionTrait,
    update: UpdateMany<Entity>,
    files: usize,
) -> Result<(), CommitError> {
    let changed = update.exec(transaction).await?.rows_affected;
    match usize::try_from(changed) {
        Ok(changed) if changed == files => Ok(()),
        _ => Err(CommitError::LeaseLost),
    }
}
