//! Expired leases: which of them indicate a crash, and which crashes count against a file.
//!
//! An expired lease proves nothing, because its process may be frozen or unable to reach the database. It makes the
//! file a suspect, which runs alone from then on. Only the death of a process that was running one suspect and nothing
//! else counts, and only once its heartbeat has been missing for a whole lease duration in which the database was
//! reachable. Two such deaths quarantine the file; any run that ends cleanly resets the count.
//!
//! Where processes also die without the file, their deaths say little about it, and more of them are required.

use super::claim::ClaimOutcome;
use crate::clock::later;
use entity::{
    FileId, Timestamp,
    file::{Column, Entity, FileStatus, Model},
    worker_process,
};
use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, PaginatorTrait, QueryFilter,
    UpdateMany,
    sea_query::{Expr, ExprTrait},
};
use std::{collections::HashMap, time::Duration};

/// Number of deaths that quarantine a file.
const MAX_DEATHS: i32 = 2;

/// The same, while processes that do not run the file die as well.
const MAX_DEATHS_AMONG_OTHERS: i32 = 10;

/// The parameters for examining expired leases.
#[derive(Clone, Debug)]
pub(super) struct ExpiredLeaseCheck<'a> {
    /// This process.
    pub(super) worker: &'a str,
    pub(super) now: Timestamp,
    pub(super) lease: Duration,
}

/// The conclusion about an expired lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeaseFinding {
    /// The process is alive and has only lost the lease.
    Released,
    /// It was running alongside other files: this file is a suspect now.
    Suspect,
    /// It was running the file alone; whether it died will be known at this time.
    Watched(Timestamp),
    /// It died while running the file alone.
    Died,
}

/// Releases the claims of files whose leases expired, and returns how each can be claimed again.
///
/// # Errors
/// Database errors.
pub(super) async fn release_expired(
    transaction: &impl ConnectionTrait,
    inquiry: &ExpiredLeaseCheck<'_>,
    expired: Vec<Model>,
) -> Result<HashMap<FileId, ClaimOutcome>, DbErr> {
    let beats = heartbeats(transaction, &expired).await?;
    let mut claims = HashMap::with_capacity(expired.len());
    for file in expired {
        let beat = file.lease_owner.as_deref().and_then(|name| beats.get(name));
        let finding = inquiry.classify(&file, beat.copied());
        let update = match finding {
            LeaseFinding::Released => staged_again(&file, inquiry.now),
            LeaseFinding::Suspect => staged_again(&file, inquiry.now)
                .col_expr(Column::SuspectSince, Expr::value(inquiry.now)),
            LeaseFinding::Died => staged_again(&file, inquiry.now)
                .col_expr(Column::AloneDeaths, Expr::col(Column::AloneDeaths).add(1)),
            LeaseFinding::Watched(_) => same_claim(&file).col_expr(
                Column::OwnerMissedAt,
                Expr::value(file.owner_missed_at.unwrap_or(inquiry.now)),
            ),
        };
        let changed = update.exec(transaction).await?.rows_affected;
        let claim = match finding {
            // Another process was faster, or the owner came back.
            _ if changed == 0 => ClaimOutcome::Later(later(inquiry.now, inquiry.lease / 3)),
            LeaseFinding::Watched(until) => ClaimOutcome::Later(until),
            LeaseFinding::Released if file.suspect_since.is_none() => {
                ClaimOutcome::Later(inquiry.now)
            }
            LeaseFinding::Released | LeaseFinding::Suspect | LeaseFinding::Died => {
                ClaimOutcome::Suspect
            }
        };
        claims.insert(file.id, claim);
    }
    Ok(claims)
}

impl ExpiredLeaseCheck<'_> {
    fn classify(&self, file: &Model, beat: Option<Timestamp>) -> LeaseFinding {
        // This process is not running the file, or it would not be asking for it.
        let is_own = file.lease_owner.as_deref() == Some(self.worker);
        let lives = beat > file.lease_expires_at && file.lease_expires_at.is_some();
        if is_own || lives {
            return LeaseFinding::Released;
        }
        if file.suspect_since.is_none() {
            return LeaseFinding::Suspect;
        }
        let missed_at = file.owner_missed_at.unwrap_or(self.now);
        let decided_at = later(missed_at, self.lease);
        match beat {
            _ if self.now < decided_at => LeaseFinding::Watched(decided_at),
            Some(beat) if beat < missed_at => LeaseFinding::Died,
            // It sends heartbeats again, or has shut down cleanly.
            _ => LeaseFinding::Released,
        }
    }
}

fn same_claim(file: &Model) -> UpdateMany<Entity> {
    Entity::update_many()
        .filter(Column::Id.eq(file.id))
        .filter(Column::Status.eq(FileStatus::Finalizing))
        .filter(Column::LeaseOwner.eq(file.lease_owner.as_deref()))
        .filter(Column::LeaseExpiresAt.eq(file.lease_expires_at))
}

fn staged_again(file: &Model, now: Timestamp) -> UpdateMany<Entity> {
    same_claim(file)
        .col_expr(Column::Status, Expr::value(FileStatus::Staged))
        .col_expr(Column::LeaseOwner, Expr::value(Option::<String>::None))
        .col_expr(
            Column::LeaseExpiresAt,
            Expr::value(Option::<Timestamp>::None),
        )
        .col_expr(
            Column::OwnerMissedAt,
            Expr::value(Option::<Timestamp>::None),
        )
        .col_expr(Column::LeaseLostAt, Expr::value(now))
        .col_expr(Column::UpdatedAt, Expr::value(now))
}

async fn heartbeats(
    transaction: &impl ConnectionTrait,
    files: &[Model],
) -> Result<HashMap<String, Timestamp>, DbErr> {
    let owners = files.iter().filter_map(|file| file.lease_owner.clone());
    let rows = worker_process::Entity::find()
        .filter(worker_process::Column::Name.is_in(owners))
        .all(transaction)
        .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.name, row.beat_at))
        .collect())
}

/// Whether enough deaths were caused by the file that it must not run again.
///
/// # Errors
/// Database errors.
pub(super) async fn must_be_quarantined(
    transaction: &impl ConnectionTrait,
    file: &Model,
    now: Timestamp,
    lease: Duration,
) -> Result<bool, DbErr> {
    if file.alone_deaths < MAX_DEATHS {
        return Ok(false);
    }
    if file.alone_deaths >= MAX_DEATHS_AMONG_OTHERS {
        return Ok(true);
    }
    use worker_process::Column as Process;
    let without_it = Condition::any()
        .add(Process::AloneFile.is_null())
        .add(Process::AloneFile.ne(file.id));
    let silent_since = now - chrono::TimeDelta::from_std(lease * 2).unwrap_or_default();
    let others = worker_process::Entity::find()
        .filter(Process::BeatAt.gt(file.suspect_since))
        .filter(Process::BeatAt.lt(silent_since))
        .filter(without_it)
        .count(transaction)
        .await?;
    Ok(others == 0)
}
