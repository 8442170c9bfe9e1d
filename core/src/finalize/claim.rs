//! The claim: one compare-and-set that gives a worker its files for a lease, each with the key its object will have.

use super::keys::{self, Wishes};
use crate::{
    clock::Clock,
    combiner::Transient,
    db::Database,
    outbox::{self, Written},
    storage::{NotAKey, StorageKey},
};
use entity::{
    FileId, Timestamp,
    file::{Column, Entity, FileStatus, Model},
};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect, QueryTrait, SqlErr,
    sea_query::{Expr, ExprTrait, LockBehavior, LockType},
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

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

impl Transient for ClaimError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Database(error) | Self::Outbox(outbox::WriteError::Database(error)) => {
                error.is_transient()
            }
            Self::Outbox(_) | Self::Key(_) => false,
        }
    }
}

/// Who claims, and for how long.
#[derive(Clone, Debug)]
pub(super) struct Claimant {
    pub worker: String,
    pub lease: Duration,
    pub overwrite: bool,
}

/// Claims many at once; the answers are in the order of `asked`.
///
/// # Errors
/// [`ClaimError`]; nothing is claimed then. Of several, one alone may be to blame.
pub(super) async fn claim(
    db: &Database,
    clock: &Clock,
    claimant: &Claimant,
    asked: &[Arc<FileId>],
) -> Result<Vec<Claim>, ClaimError> {
    let mut ids: Vec<FileId> = asked.iter().map(|id| **id).collect();
    ids.sort_unstable();
    ids.dedup();
    for attempt in 0..KEYS_TRIED {
        let terms = Terms {
            now: clock.now(),
            until: clock.after(claimant.lease),
            claimant: claimant.clone(),
            plain_is_taken: attempt > 0,
        };
        let until = terms.until;
        let take_these = ids.clone();
        let claimed =
            db.write_repeatable(move |t| Box::pin(take(t, terms.clone(), take_these.clone())));
        match claimed.await {
            Ok(claims) => return Ok(in_order(asked, claims, until)),
            // Another file took the key between the look and the write; nothing of the claim is left.
            Err(ClaimError::Database(error)) if ids.len() == 1 && is_taken(&error) => {}
            Err(error) => return Err(error),
        }
    }
    let soon = clock.after(Duration::from_secs(1));
    Ok(asked.iter().map(|_| Claim::Later(soon)).collect())
}

/// Asked for twice, a file goes to the first; the other hears that it is taken.
fn in_order(
    asked: &[Arc<FileId>],
    mut claims: HashMap<FileId, Claim>,
    taken_until: Timestamp,
) -> Vec<Claim> {
    asked
        .iter()
        .map(|id| match claims.remove(id) {
            Some(claim) => {
                let again = match &claim {
                    Claim::Mine(_) => Claim::Later(taken_until),
                    Claim::Later(at) => Claim::Later(*at),
                    Claim::Nothing => Claim::Nothing,
                };
                claims.insert(**id, again);
                claim
            }
            None => Claim::Nothing,
        })
        .collect()
}

fn is_taken(error: &DbErr) -> bool {
    matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_)))
}

#[derive(Clone, Debug)]
struct Terms {
    now: Timestamp,
    until: Timestamp,
    claimant: Claimant,
    /// The plain key was free a moment ago and is not any more.
    plain_is_taken: bool,
}

async fn take(
    transaction: &impl ConnectionTrait,
    terms: Terms,
    ids: Vec<FileId>,
) -> Result<HashMap<FileId, Claim>, ClaimError> {
    let files = compare_and_set(transaction, &terms, &ids).await?;
    let mut claims = HashMap::with_capacity(ids.len());
    if files.len() < ids.len() {
        let got: HashSet<FileId> = files.iter().map(|file| file.id).collect();
        let missed: Vec<FileId> = ids.into_iter().filter(|id| !got.contains(id)).collect();
        claims = why_not(transaction, missed, terms.now).await?;
    }
    let (mut claimed, mut keyless) = (Vec::with_capacity(files.len()), Vec::new());
    for file in files {
        match &file.storage_key {
            Some(key) => claimed.push(Claimed {
                key: key.parse()?,
                file,
                replaced: Vec::new(),
            }),
            None => keyless.push(file),
        }
    }
    if !keyless.is_empty() {
        let wishes = Wishes {
            overwrite: terms.claimant.overwrite,
            plain_is_taken: terms.plain_is_taken,
            now: terms.now,
        };
        claimed.extend(keys::give(transaction, keyless, wishes).await?);
    }
    claims.extend(
        claimed
            .into_iter()
            .map(|claimed| (claimed.file.id, Claim::Mine(Box::new(claimed)))),
    );
    Ok(claims)
}

async fn compare_and_set(
    transaction: &impl ConnectionTrait,
    terms: &Terms,
    ids: &[FileId],
) -> Result<Vec<Model>, DbErr> {
    // Whoever holds a row locked is about to change it: it is passed over rather than waited for.
    let free = Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(Column::Id.is_in(ids.iter().copied()))
        .filter(claimable(terms.now))
        .order_by_asc(Column::Id)
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .into_query();
    let crashed = Expr::case(
        Column::Status.eq(FileStatus::Finalizing),
        Expr::col(Column::FinalizeCrashes).add(1),
    )
    .finally(Expr::col(Column::FinalizeCrashes));
    Entity::update_many()
        .col_expr(Column::FinalizeCrashes, crashed.into())
        .col_expr(Column::Status, Expr::value(FileStatus::Finalizing))
        .col_expr(Column::LeaseOwner, Expr::value(&terms.claimant.worker))
        .col_expr(Column::LeaseExpiresAt, Expr::value(terms.until))
        .col_expr(Column::ClaimedBy, Expr::value(&terms.claimant.worker))
        .col_expr(Column::ClaimedAt, Expr::value(terms.now))
        .col_expr(Column::UpdatedAt, Expr::value(terms.now))
        // Not once more what is claimable: SQLite would look through all that is staged rather than for these.
        .filter(Column::Id.in_subquery(free))
        .exec_with_returning(transaction)
        .await
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

/// Says of files that were not taken when to come back for them, if at all.
async fn why_not(
    transaction: &impl ConnectionTrait,
    missed: Vec<FileId>,
    now: Timestamp,
) -> Result<HashMap<FileId, Claim>, DbErr> {
    let rows: Vec<(FileId, FileStatus, Option<Timestamp>, Option<Timestamp>)> = Entity::find()
        .select_only()
        .columns([
            Column::Id,
            Column::Status,
            Column::NextAttemptAt,
            Column::LeaseExpiresAt,
        ])
        .filter(Column::Id.is_in(missed))
        .into_tuple()
        .all(transaction)
        .await?;
    Ok(rows
        .into_iter()
        .filter_map(|(id, status, due, leased)| match status {
            FileStatus::Staged => Some((id, Claim::Later(due.unwrap_or(now)))),
            FileStatus::Finalizing => Some((id, Claim::Later(leased.unwrap_or(now)))),
            _ => None,
        })
        .collect())
}
