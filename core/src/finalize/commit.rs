//! How a finalize run ends: stored, failed, or put off. Each is one transaction, fenced by the lease; many that are
//! stored share one.

use crate::{
    batches::{self, Settled},
    combiner::Transient,
    outbox::{self, FileStored, NewEvent, Written},
    storage::{StorageKey, transfer::Landed},
    usage,
};
use entity::{
    FileId, Timestamp,
    file::{Column, Entity, FileStatus, Model},
};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, UpdateMany,
    sea_query::{CaseStatement, Expr, ExprTrait, SimpleExpr},
};
use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The lease has passed to another worker; nothing was changed.
    #[error("the lease was lost")]
    LeaseLost,
    #[error("the outcome could not be recorded")]
    Database(#[from] DbErr),
    #[error("the outcome could not be announced")]
    Outbox(#[from] outbox::WriteError),
}

impl Transient for CommitError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Database(error) | Self::Outbox(outbox::WriteError::Database(error)) => {
                error.is_transient()
            }
            Self::LeaseLost | Self::Outbox(_) => false,
        }
    }
}

/// Why a file fails for good, as its owner will read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) code: &'static str,
    pub(super) message: String,
}

/// An object that is whole and verified, and not yet committed.
#[derive(Clone, Debug)]
pub(super) struct Ashore {
    pub(super) landed: Landed,
    /// When it was.
    pub(super) at: Timestamp,
    /// The type the file has, by what was said of it and by its bytes.
    pub(super) content_type: String,
    /// Where the object can be fetched, for its event.
    pub(super) url: String,
}

/// A file whose object is ashore, to be committed.
#[derive(Clone, Debug)]
pub(super) struct Storing {
    pub(super) file: Model,
    pub(super) ashore: Ashore,
}

/// The files are stored, their events are written, their batches count them; all of it or nothing. The answers, in
/// the order of the files, are what is to be announced of each.
///
/// # Errors
/// [`CommitError`]; [`CommitError::LeaseLost`] when one of them is no longer `worker`'s.
pub(super) async fn store(
    transaction: &impl ConnectionTrait,
    worker: &str,
    storing: &[Arc<Storing>],
    now: Timestamp,
) -> Result<Vec<Vec<Written>>, CommitError> {
    let each = |value: &dyn Fn(&Ashore) -> SimpleExpr| -> SimpleExpr {
        storing
            .iter()
            .fold(CaseStatement::new(), |case, one| {
                case.case(Column::Id.eq(one.file.id), value(&one.ashore))
            })
            .into()
    };
    let update = mine(storing.iter().map(|one| one.file.id), worker)
        .col_expr(Column::Status, Expr::value(FileStatus::Stored))
        .col_expr(
            Column::ContentType,
            each(&|ashore| Expr::val(&ashore.content_type)),
        )
        .col_expr(
            Column::Sha256,
            each(&|ashore| Expr::val(ashore.landed.sha256.to_string())),
        )
        .col_expr(Column::LandedAt, each(&|ashore| Expr::val(ashore.at)))
        .col_expr(Column::StagingKey, Expr::value(Option::<String>::None))
        .col_expr(Column::StoredAt, Expr::value(now));
    change(transaction, release(update, now), storing.len()).await?;
    let events = storing.iter().map(|one| {
        let payload = FileStored::of(&one.file, one.ashore.landed.sha256, one.ashore.url.clone());
        NewEvent::file_stored(payload, &one.file)
    });
    let written = outbox::write_all(transaction, now, events.collect()).await?;
    let mut written: Vec<Vec<Written>> = written.into_iter().map(|one| vec![one]).collect();
    let mut in_batches: Vec<_> = storing
        .iter()
        .zip(&mut written)
        .filter_map(|(one, written)| Some((one.file.batch_id?, written)))
        .collect();
    // In one order, so that two who count in the same batches do not wait for each other.
    in_batches.sort_by_key(|(batch, _)| *batch);
    for (batch, written) in in_batches {
        written.extend(batches::settle(transaction, batch, Settled::Stored, now).await?);
    }
    Ok(written)
}

/// The file is failed, and nothing announces it but its batch's end.
pub(super) async fn fail(
    transaction: &impl ConnectionTrait,
    file: &Model,
    worker: &str,
    failure: &Failure,
    now: Timestamp,
) -> Result<Vec<Written>, CommitError> {
    let update = mine([file.id], worker)
        .col_expr(Column::Status, Expr::value(FileStatus::Failed))
        .col_expr(Column::ErrorCode, Expr::value(failure.code))
        .col_expr(Column::ErrorMessage, Expr::value(&failure.message));
    change(transaction, release(update, now), 1).await?;
    usage::give_back(transaction, file).await?;
    match file.batch_id {
        Some(batch) => Ok(batches::settle(transaction, batch, Settled::Failed, now)
            .await?
            .into_iter()
            .collect()),
        None => Ok(Vec::new()),
    }
}

/// The file is staged again and due at `at`, under another key if one is given; its bytes stay where they are.
pub(super) async fn put_off(
    transaction: &impl ConnectionTrait,
    file: &Model,
    worker: &str,
    key: Option<StorageKey>,
    at: Timestamp,
    now: Timestamp,
) -> Result<(), CommitError> {
    let mut update = mine([file.id], worker)
        .col_expr(Column::Status, Expr::value(FileStatus::Staged))
        .col_expr(
            Column::FinalizeAttempts,
            Expr::col(Column::FinalizeAttempts).add(1),
        )
        .col_expr(Column::NextAttemptAt, Expr::value(at));
    if let Some(key) = key {
        update = update.col_expr(Column::StorageKey, Expr::value(key.as_str()));
    }
    change(transaction, release(update, now), 1).await
}

fn mine(ids: impl IntoIterator<Item = FileId>, worker: &str) -> UpdateMany<Entity> {
    Entity::update_many()
        .filter(Column::Id.is_in(ids))
        .filter(Column::Status.eq(FileStatus::Finalizing))
        .filter(Column::LeaseOwner.eq(worker))
}

fn release(update: UpdateMany<Entity>, now: Timestamp) -> UpdateMany<Entity> {
    update
        .col_expr(Column::LeaseOwner, Expr::value(Option::<String>::None))
        .col_expr(
            Column::LeaseExpiresAt,
            Expr::value(Option::<Timestamp>::None),
        )
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
