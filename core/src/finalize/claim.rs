//! The claim: one compare-and-set that leases files to a worker, each with the key its object will have.

use super::{
    key_owners::{self, KeyAcquisition},
    key_reservation::{self, KeyPolicy},
    suspicion::{self, ExpiredLeaseCheck},
};
use crate::{
    batcher::ClassifyError,
    clock::{Clock, later},
    db::Database,
    outbox::{self, WrittenEvent},
    storage::{InvalidStorageKey, StorageKey},
};
use entity::{
    FileId, Timestamp,
    file::{Column, Entity, FileStatus, Model},
};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect, QueryTrait, SqlErr, UpdateMany,
    sea_query::{Expr, ExprTrait, LockBehavior, LockType},
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

/// How many keys are tried before the claim is rescheduled. The chance that a random key is taken is one in 62⁷.
const MAX_KEY_ATTEMPTS: usize = 4;

/// The outcome of a claim.
#[derive(Debug)]
pub enum ClaimOutcome {
    /// The worker holds the file until its lease expires.
    Claimed(Box<ClaimedFile>),
    /// The file may have killed its worker, so it must run alone.
    Suspect,
    /// Claimed by another worker, or waiting for a retry.
    Later(Timestamp),
    /// Final, still uploading, or unknown: there is nothing to do.
    Nothing,
}

/// A claimed file.
#[derive(Debug)]
pub struct ClaimedFile {
    pub file: Model,
    pub key: StorageKey,
    /// Events of files that gave up their key to this one (`file_overwrite` only).
    pub replaced: Vec<WrittenEvent>,
    /// Whether the file killed so many processes that it must not run again.
    pub quarantined: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error("the file could not be claimed")]
    Database(#[from] DbErr),
    #[error("the replaced file could not be announced")]
    Outbox(#[from] outbox::WriteError),
    #[error("the row has an invalid storage key")]
    Key(#[from] InvalidStorageKey),
    /// Another transaction changed a row that this one had read; a retry may succeed.
    #[error("the key's owner changed meanwhile")]
    OwnerChanged,
}

impl ClassifyError for ClaimError {
    fn is_transient(&self) -> bool {
        match self {
            Self::Database(error) | Self::Outbox(outbox::WriteError::Database(error)) => {
                error.is_transient()
            }
            Self::Outbox(_) | Self::Key(_) | Self::OwnerChanged => false,
        }
    }
}

impl ClaimError {
    /// Whether another file took the key between read and write; nothing was changed.
    fn is_key_taken(&self) -> bool {
        match self {
            Self::Database(error) => {
                matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_)))
            }
            Self::OwnerChanged => true,
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

/// Claims many files at once; the outcomes are in the order of `asked`.
///
/// # Errors
/// [`ClaimError`]; nothing is claimed then. A single file of the batch may be the cause.
pub(super) async fn claim(
    db: &Database,
    clock: &Clock,
    claimant: &Claimant,
    requested: &[Arc<FileId>],
) -> Result<Vec<ClaimOutcome>, ClaimError> {
    let mut ids: Vec<FileId> = requested.iter().map(|id| **id).collect();
    ids.sort_unstable();
    ids.dedup();
    let until = clock.after(claimant.lease);
    let claims = attempt(db, clock, claimant, &ids, false).await?;
    Ok(in_order(requested, claims, until))
}

/// Claims a suspect file, which the caller must run alone.
///
/// # Errors
/// [`ClaimError`]; nothing is claimed then.
pub(super) async fn claim_alone(
    db: &Database,
    clock: &Clock,
    claimant: &Claimant,
    id: FileId,
) -> Result<ClaimOutcome, ClaimError> {
    let mut claims = attempt(db, clock, claimant, &[id], true).await?;
    Ok(claims.remove(&id).unwrap_or(ClaimOutcome::Nothing))
}

async fn attempt(
    db: &Database,
    clock: &Clock,
    claimant: &Claimant,
    ids: &[FileId],
    alone: bool,
) -> Result<HashMap<FileId, ClaimOutcome>, ClaimError> {
    for attempt in 0..MAX_KEY_ATTEMPTS {
        let terms = ClaimTerms {
            now: clock.now(),
            until: clock.after(claimant.lease),
            claimant: claimant.clone(),
            plain_is_taken: attempt > 0,
            alone,
        };
        let these = ids.to_vec();
        let claimed =
            db.write_repeatable(move |t| Box::pin(claim_batch(t, terms.clone(), these.clone())));
        match claimed.await {
            Err(error) if ids.len() == 1 && error.is_key_taken() => {}
            done => return done,
        }
    }
    let soon = clock.after(Duration::from_secs(1));
    Ok(ids
        .iter()
        .map(|id| (*id, ClaimOutcome::Later(soon)))
        .collect())
}

/// If a file is requested twice, the first request gets it and the other is told that it is claimed.
fn in_order(
    requested: &[Arc<FileId>],
    mut claims: HashMap<FileId, ClaimOutcome>,
    taken_until: Timestamp,
) -> Vec<ClaimOutcome> {
    requested
        .iter()
        .map(|id| match claims.remove(id) {
            Some(claim) => {
                let again = match &claim {
                    ClaimOutcome::Claimed(_) => ClaimOutcome::Later(taken_until),
                    ClaimOutcome::Later(at) => ClaimOutcome::Later(*at),
                    ClaimOutcome::Suspect => ClaimOutcome::Suspect,
                    ClaimOutcome::Nothing => ClaimOutcome::Nothing,
                };
                claims.insert(**id, again);
                claim
            }
            None => ClaimOutcome::Nothing,
        })
        .collect()
}

#[derive(Clone, Debug)]
struct ClaimTerms {
    now: Timestamp,
    until: Timestamp,
    claimant: Claimant,
    /// The plain key was free when it was checked, but no longer is.
    plain_is_taken: bool,
    /// Whether only suspects are claimed; otherwise none are.
    alone: bool,
}

async fn claim_batch(
    transaction: &impl ConnectionTrait,
    terms: ClaimTerms,
    ids: Vec<FileId>,
) -> Result<HashMap<FileId, ClaimOutcome>, ClaimError> {
    let files = compare_and_set(transaction, &terms, &ids).await?;
    let mut claims = HashMap::with_capacity(ids.len());
    if files.len() < ids.len() {
        let got: HashSet<FileId> = files.iter().map(|file| file.id).collect();
        let missed: Vec<FileId> = ids.into_iter().filter(|id| !got.contains(id)).collect();
        claims = explain_unclaimed(transaction, missed, &terms).await?;
    }
    let mut claimed = with_keys(transaction, &terms, files).await?;
    if terms.claimant.overwrite {
        claimed = owners_of_their_keys(transaction, &terms, claimed, &mut claims).await?;
    }
    for mut one in claimed {
        if terms.alone {
            let lease = terms.claimant.lease;
            one.quarantined =
                suspicion::must_be_quarantined(transaction, &one.file, terms.now, lease).await?;
        }
        claims.insert(one.file.id, ClaimOutcome::Claimed(Box::new(one)));
    }
    Ok(claims)
}

async fn with_keys(
    transaction: &impl ConnectionTrait,
    terms: &ClaimTerms,
    files: Vec<Model>,
) -> Result<Vec<ClaimedFile>, ClaimError> {
    let (mut claimed, mut keyless) = (Vec::with_capacity(files.len()), Vec::new());
    for file in files {
        match &file.storage_key {
            Some(key) => claimed.push(ClaimedFile::new(key.parse()?, file)),
            None => keyless.push(file),
        }
    }
    if keyless.is_empty() {
        return Ok(claimed);
    }
    let policy = KeyPolicy {
        overwrite: terms.claimant.overwrite,
        plain_is_taken: terms.plain_is_taken,
    };
    claimed.extend(key_reservation::reserve(transaction, keyless, policy).await?);
    Ok(claimed)
}

impl ClaimedFile {
    pub(super) fn new(key: StorageKey, file: Model) -> Self {
        Self {
            file,
            key,
            replaced: Vec::new(),
            quarantined: false,
        }
    }
}

/// With `file_overwrite`, keys have owners: files that must wait for their key are staged again.
async fn owners_of_their_keys(
    transaction: &impl ConnectionTrait,
    terms: &ClaimTerms,
    mut claimed: Vec<ClaimedFile>,
    claims: &mut HashMap<FileId, ClaimOutcome>,
) -> Result<Vec<ClaimedFile>, ClaimError> {
    // In a fixed order, so that concurrent claims do not deadlock.
    claimed.sort_by(|one, other| one.key.as_str().cmp(other.key.as_str()));
    let mut owners = Vec::with_capacity(claimed.len());
    for mut one in claimed {
        match key_owners::acquire(transaction, &one.key, &one.file, terms.now).await? {
            KeyAcquisition::Owned(replaced) => one.replaced = replaced,
            KeyAcquisition::Retired => {
                one.key = one.key.deduplicated(&mut rand::rng());
                key_owners::acquire(transaction, &one.key, &one.file, terms.now).await?;
            }
            KeyAcquisition::Wait(until) => {
                stage_again(transaction, &one.file, until).await?;
                claims.insert(one.file.id, ClaimOutcome::Later(until));
                continue;
            }
        }
        owners.push(one);
    }
    key_reservation::write_keys(transaction, &mut owners).await?;
    Ok(owners)
}

async fn stage_again(
    transaction: &impl ConnectionTrait,
    file: &Model,
    until: Timestamp,
) -> Result<(), DbErr> {
    Entity::update_many()
        .col_expr(Column::Status, Expr::value(FileStatus::Staged))
        .col_expr(Column::LeaseOwner, Expr::value(Option::<String>::None))
        .col_expr(
            Column::LeaseExpiresAt,
            Expr::value(Option::<Timestamp>::None),
        )
        .col_expr(Column::NextAttemptAt, Expr::value(until))
        .filter(Column::Id.eq(file.id))
        .exec(transaction)
        .await
        .map(drop)
}

async fn compare_and_set(
    transaction: &impl ConnectionTrait,
    terms: &ClaimTerms,
    ids: &[FileId],
) -> Result<Vec<Model>, DbErr> {
    // Locked rows are skipped rather than waited for, because the holder of the lock is about to change them.
    let free = Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(Column::Id.is_in(ids.iter().copied()))
        .filter(claimable(terms))
        .order_by_asc(Column::Id)
        .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked)
        .into_query();
    claimed_by(&terms.claimant.worker, terms)
        // The claimable condition is not repeated here: SQLite would scan all staged files instead of looking these up.
        .filter(Column::Id.in_subquery(free))
        .exec_with_returning(transaction)
        .await
}

fn claimed_by(worker: &str, terms: &ClaimTerms) -> UpdateMany<Entity> {
    Entity::update_many()
        .col_expr(Column::Status, Expr::value(FileStatus::Finalizing))
        .col_expr(Column::LeaseOwner, Expr::value(worker))
        .col_expr(Column::LeaseExpiresAt, Expr::value(terms.until))
        .col_expr(Column::ClaimedBy, Expr::value(worker))
        .col_expr(Column::ClaimedAt, Expr::value(terms.now))
        .col_expr(Column::UpdatedAt, Expr::value(terms.now))
}

/// Staged and due; suspects for [`claim_alone`], all others for [`claim`].
fn claimable(terms: &ClaimTerms) -> Condition {
    let suspect = match terms.alone {
        true => Column::SuspectSince.is_not_null(),
        false => Column::SuspectSince.is_null(),
    };
    Condition::all()
        .add(Column::Status.eq(FileStatus::Staged))
        .add(suspect)
        .add(
            Column::NextAttemptAt
                .is_null()
                .or(Column::NextAttemptAt.lte(terms.now)),
        )
}

/// Returns when to retry files that could not be claimed, if at all. Expired leases are examined, and their claims
/// released.
async fn explain_unclaimed(
    transaction: &impl ConnectionTrait,
    missed: Vec<FileId>,
    terms: &ClaimTerms,
) -> Result<HashMap<FileId, ClaimOutcome>, DbErr> {
    let now = terms.now;
    let rows = Entity::find()
        .filter(Column::Id.is_in(missed))
        .all(transaction)
        .await?;
    let (mut claims, mut expired) = (HashMap::with_capacity(rows.len()), Vec::new());
    for file in rows {
        let due = file.next_attempt_at.filter(|due| *due > now);
        let claim = match (file.status, due) {
            (FileStatus::Staged, Some(due)) => ClaimOutcome::Later(due),
            (FileStatus::Staged, None) if file.suspect_since.is_some() => ClaimOutcome::Suspect,
            // Another transaction has locked the row.
            (FileStatus::Staged, None) => ClaimOutcome::Later(now),
            (FileStatus::Finalizing, _) => {
                // This process is not running the file, or it would not have asked: the response to its claim was lost.
                let is_own = file.lease_owner.as_ref() == Some(&terms.claimant.worker);
                match file.lease_expires_at.filter(|end| *end >= now && !is_own) {
                    Some(end) => ClaimOutcome::Later(end),
                    None => {
                        expired.push(file);
                        continue;
                    }
                }
            }
            _ => continue,
        };
        claims.insert(file.id, claim);
    }
    if !expired.is_empty() {
        let inquiry = ExpiredLeaseCheck {
            worker: &terms.claimant.worker,
            now,
            lease: terms.claimant.lease,
        };
        claims.extend(suspicion::release_expired(transaction, &inquiry, expired).await?);
    }
    // A suspect that another process claimed in between.
    if terms.alone {
        let soon = later(now, Duration::from_secs(1));
        for claim in claims.values_mut() {
            if matches!(claim, ClaimOutcome::Suspect) {
                *claim = ClaimOutcome::Later(soon);
            }
        }
    }
    Ok(claims)
}
