//! The claim: one compare-and-set that gives a worker the file for a lease, and the key the object will have.

use crate::{
    clock::Clock,
    db::Database,
    outbox::{self, FileDeleted, NewEvent, Written},
    storage::{NotAKey, StorageKey},
    usage,
};
use entity::{
    FileId, Timestamp,
    file::{Column, Entity, FileStatus, Model},
};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, QueryFilter, SqlErr,
    sea_query::{Expr, ExprTrait},
};
use std::time::Duration;

/// Runs of one file that may end without a word before it is taken for poison.
pub const MAX_CRASHES: i32 = 3;

/// Keys tried before the claim is put off: each is taken with a chance of one in 62⁷.
const KEYS_TRIED: usize = 4;

/// What came of a claim.
#[derive(Debug)]
pub enum Claim {
    /// The file is this worker's until its lease ends.
    Mine(Box<Claimed>),
    /// Another worker's, or waiting to be tried again.
    Later(Timestamp),
    /// Final, or still uploading, or unknown: nothing to do.
    Nothing,
}

/// A claimed file.
#[derive(Debug)]
pub struct Claimed {
    pub file: Model,
    pub key: StorageKey,
    /// What announces that another file gave up its key (`file_overwrite` only).
    pub replaced: Vec<Written>,
}

#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error("the file could not be claimed")]
    Database(#[from] DbErr),
    #[error("the replaced file could not be announced")]
    Outbox(#[from] outbox::WriteError),
    #[error("the row has a storage key that is none")]
    Key(#[from] NotAKey),
}

/// Who claims, and for how long.
#[derive(Clone, Debug)]
pub(super) struct Claimant {
    pub worker: String,
    pub lease: Duration,
    pub overwrite: bool,
}

pub(super) async fn claim(
    db: &Database,
    clock: &Clock,
    id: FileId,
    claimant: &Claimant,
) -> Result<Claim, ClaimError> {
    for attempt in 0..KEYS_TRIED {
        let (now, until) = (clock.now(), clock.after(claimant.lease));
        let claimant = claimant.clone();
        let claimed = db.write(move |t| {
            Box::pin(async move { try_claim(t, id, &claimant, now, until, attempt > 0).await })
        });
        match claimed.await {
            Ok(Some(claimed)) => return Ok(Claim::Mine(Box::new(claimed))),
            Ok(None) => return Ok(why_not(db, id, now).await?),
            // Another file took the key between the look and the write; nothing of the claim is left.
            Err(ClaimError::Database(error)) if is_taken(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Claim::Later(clock.after(Duration::from_secs(1))))
}

fn is_taken(error: &DbErr) -> bool {
    matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_)))
}

async fn try_claim(
    transaction: &impl ConnectionTrait,
    id: FileId,
    claimant: &Claimant,
    now: Timestamp,
    until: Timestamp,
    plain_is_taken: bool,
) -> Result<Option<Claimed>, ClaimError> {
    let crashed = Expr::case(
        Column::Status.eq(FileStatus::Finalizing),
        Expr::col(Column::FinalizeCrashes).add(1),
    )
    .finally(Expr::col(Column::FinalizeCrashes));
    let rows = Entity::update_many()
        .col_expr(Column::FinalizeCrashes, crashed.into())
        .col_expr(Column::Status, Expr::value(FileStatus::Finalizing))
        .col_expr(Column::LeaseOwner, Expr::value(&claimant.worker))
        .col_expr(Column::LeaseExpiresAt, Expr::value(until))
        .col_expr(Column::ClaimedBy, Expr::value(&claimant.worker))
        .col_expr(Column::ClaimedAt, Expr::value(now))
        .col_expr(Column::UpdatedAt, Expr::value(now))
        .filter(Column::Id.eq(id))
        .filter(claimable(now))
        .exec_with_returning(transaction)
        .await?;
    let Some(mut file) = rows.into_iter().next() else {
        return Ok(None);
    };
    if let Some(key) = &file.storage_key {
        let key = key.parse()?;
        return Ok(Some(Claimed {
            file,
            key,
            replaced: Vec::new(),
        }));
    }
    let (key, replaced) =
        choose_key(transaction, &file, claimant.overwrite, now, plain_is_taken).await?;
    Entity::update_many()
        .col_expr(Column::StorageKey, Expr::value(key.as_str()))
        .filter(Column::Id.eq(id))
        .exec(transaction)
        .await?;
    file.storage_key = Some(key.as_str().to_owned());
    Ok(Some(Claimed {
        file,
        key,
        replaced,
    }))
}

/// Staged and due, or left behind by a worker whose lease ran out.
fn claimable(now: Timestamp) -> Condition {
    Condition::any()
        .add(
            Column::Status.eq(FileStatus::Staged).and(
                Column::NextAttemptAt
                    .is_null()
                    .or(Column::NextAttemptAt.lte(now)),
            ),
        )
        .add(
            Column::Status
                .eq(FileStatus::Finalizing)
                .and(Column::LeaseExpiresAt.lt(now)),
        )
}

/// The plain key when it is free, else one with random characters; with overwriting on, always the plain key.
async fn choose_key(
    transaction: &impl ConnectionTrait,
    file: &Model,
    overwrite: bool,
    now: Timestamp,
    plain_is_taken: bool,
) -> Result<(StorageKey, Vec<Written>), ClaimError> {
    let plain = StorageKey::for_upload(&file.original_filename, file.created_at);
    if overwrite {
        let replaced = take_over(transaction, &plain, now).await?;
        return Ok((plain, replaced));
    }
    let holder = Entity::find()
        .filter(Column::StorageKey.eq(plain.as_str()))
        .one(transaction)
        .await?;
    let key = if plain_is_taken || holder.is_some() {
        plain.deduplicated(&mut rand::rng())
    } else {
        plain
    };
    Ok((key, Vec::new()))
}

/// With `file_overwrite`, a stored file gives up its key to the newer one and is deleted, now and in the open,
/// before the first of its bytes is overwritten. A file still on its way keeps the key until it is final: the
/// unique index refuses the claim, and it is tried again.
async fn take_over(
    transaction: &impl ConnectionTrait,
    key: &StorageKey,
    now: Timestamp,
) -> Result<Vec<Written>, ClaimError> {
    let gives_up = |from: FileStatus| {
        Entity::update_many()
            .col_expr(Column::StorageKey, Expr::value(Option::<String>::None))
            .col_expr(Column::UpdatedAt, Expr::value(now))
            .filter(Column::StorageKey.eq(key.as_str()))
            .filter(Column::Status.eq(from))
    };
    // One that was deleted before, and whose object was yet to be removed, has been announced.
    gives_up(FileStatus::Deleted).exec(transaction).await?;
    let replaced = gives_up(FileStatus::Stored)
        .col_expr(Column::Status, Expr::value(FileStatus::Deleted))
        .col_expr(Column::DeletedAt, Expr::value(now))
        .exec_with_returning(transaction)
        .await?;
    let mut written = Vec::new();
    for file in replaced {
        usage::change(
            transaction,
            file.owner.as_deref(),
            file.id.0,
            -file.size_bytes,
        )
        .await?;
        let event = NewEvent::file_deleted(FileDeleted::of(&file, now), &file);
        written.push(outbox::write(transaction, now, event).await?);
    }
    Ok(written)
}

async fn why_not(db: &Database, id: FileId, now: Timestamp) -> Result<Claim, DbErr> {
    let file = Entity::find_by_id(id).one(db.read()).await?;
    Ok(match file {
        Some(Model {
            status: FileStatus::Staged,
            next_attempt_at: Some(at),
            ..
        }) => Claim::Later(at),
        Some(Model {
            status: FileStatus::Staged,
            ..
        }) => Claim::Later(now),
        Some(Model {
            status: FileStatus::Finalizing,
            lease_expires_at,
            ..
        }) => Claim::Later(lease_expires_at.unwrap_or(now)),
        _ => Claim::Nothing,
    })
}
