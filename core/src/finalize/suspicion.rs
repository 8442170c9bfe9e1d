//! Leases that ran out: which of them tell of a crash, and which crashes speak against a file.
//!
//! An expired lease proves nothing: its process may be frozen, or have been kept from the database. It makes the file
//! a suspect, which runs alone from then on. Only the death of a process that ran one suspect and nothing else counts,
//! and only once its heartbeat has stayed away for a whole lease during which the database could be reached. Two such
//! deaths quarantine the file; any orderly end clears the count.
//!
//! Where processes die without the file too, their deaths say little about it, and more of them are needed.

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

/// Deaths that quarantine a file.
const MAX_DEATHS: i32 = 2;

/// The same, while other processes die as well that do not run it.
const MAX_DEATHS_AMONG_OTHERS: i32 = 10;

/// How leases that ran out are looked at.
#[derive(Clone, Debug)]
pub(super) struct ExpiredLeaseCheck<'a> {
    /// This process.
    pub(super) worker: &'a str,
    pub(super) now: Timestamp,
    pub(super) lease: Duration,
}

/// What an expired lease comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LeaseFinding {
    /// The process lives, and has lost the lease only.
    Released,
    /// It ran beside other files: this one is a suspect now.
    Suspect,
    /// It ran the file alone; whether it died shows by this moment.
    Watched(Timestamp),
    /// It died while it ran the file alone.
    Died,
}

/// Releases the claims of files whose leases ran out, and says how each can be claimed again.
///
/// # Errors
/// The database's.
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
            // Another process was faster, or the owner has come back.
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
        // This process does not run the file, or it would not ask for it.
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
            // It beats again, or has ended in an orderly way.
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

/// Whether so many deaths are proved to be the file's work that it must not run again.
///
/// # Errors
/// The database's.
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
