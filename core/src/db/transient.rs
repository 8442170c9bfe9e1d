//! Classifies database errors: whether a statement may be retried, and whether the database accepts writes.

use sea_orm::{DbErr, RuntimeErr, sqlx};
use std::{error::Error, sync::Arc};

/// SQLite result codes by their low byte (sqlite.org/rescode.html): the database is locked or busy; the disk failed, is
/// full or read-only; the file cannot be opened; or another connection changed the schema.
mod sqlite {
    pub(super) const BUSY: u32 = 5;
    pub(super) const LOCKED: u32 = 6;
    pub(super) const READONLY: u32 = 8;
    pub(super) const IOERR: u32 = 10;
    pub(super) const FULL: u32 = 13;
    pub(super) const CANTOPEN: u32 = 14;
    pub(super) const PROTOCOL: u32 = 15;
    pub(super) const SCHEMA: u32 = 17;

    pub(super) const TRANSIENT: [u32; 8] = [
        BUSY, LOCKED, READONLY, IOERR, FULL, CANTOPEN, PROTOCOL, SCHEMA,
    ];

    /// After one of these, the connection must not be used again.
    pub(super) const BROKEN: [u32; 4] = [READONLY, IOERR, FULL, CANTOPEN];
}

/// SQLSTATE classes (PostgreSQL, appendix A): connection exception, transaction rollback, insufficient resources,
/// operator intervention, system error.
const TRANSIENT_CLASSES: [&str; 5] = ["08", "40", "53", "57", "58"];

/// Read-only transactions (the server was demoted or configured so), and timeouts of locks, idle transactions and idle
/// sessions.
const TRANSIENT_STATES: [&str; 4] = [READ_ONLY, "55P03", "25P03", "25P04"];

const READ_ONLY: &str = "25006";
const DISK_FULL: &str = "53100";

/// Two transactions conflict and cannot both commit; the other one may have committed by now.
const SERIALIZATION_CONFLICTS: [&str; 2] = ["40001", "40P01"];

/// A lock was not available in time, or only with a deadlock.
const LOCK_TIMEOUTS: [&str; 2] = ["55P03", "40P01"];

/// The statement exceeded its timeout, or was cancelled.
const STATEMENT_TIMEOUT: &str = "57014";

/// SQLite's error codes are numbers, PostgreSQL's have five characters.
enum DriverCode {
    Sqlite(u32),
    Postgres(String),
}

fn code(error: &sqlx::Error) -> Option<DriverCode> {
    let sqlx::Error::Database(error) = error else {
        return None;
    };
    let code = error.code()?;
    if code.len() == 5 {
        return Some(DriverCode::Postgres(code.into_owned()));
    }
    let number: u32 = code.parse().ok()?;
    Some(DriverCode::Sqlite(number & 0xff))
}

/// Whether the same statement may succeed a moment later: the database is unreachable, busy, full, read-only or
/// restarting.
#[must_use]
pub fn is_transient(error: &DbErr) -> bool {
    match error {
        DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => true,
        DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error)) => {
            is_lost_connection(error)
                || match code(error) {
                    Some(DriverCode::Sqlite(code)) => sqlite::TRANSIENT.contains(&code),
                    Some(DriverCode::Postgres(state)) => is_transient_state(&state),
                    None => false,
                }
        }
        _ => false,
    }
}

fn is_transient_state(state: &str) -> bool {
    TRANSIENT_STATES.contains(&state)
        || TRANSIENT_CLASSES
            .iter()
            .any(|class| state.starts_with(class))
}

fn is_lost_connection(error: &sqlx::Error) -> bool {
    matches!(
        error,
        sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed
    )
}

/// Whether the disk of the database is full.
#[must_use]
pub fn is_full(error: &DbErr) -> bool {
    match driver_error(error).and_then(|error| code(error)) {
        Some(DriverCode::Sqlite(code)) => code == sqlite::FULL,
        Some(DriverCode::Postgres(state)) => state == DISK_FULL,
        None => false,
    }
}

/// Returns the error if the connection that reported it cannot be trusted and a new one may work: it is lost, its
/// server is read-only, or the disk failed.
pub(super) fn broken_connection(error: &(dyn Error + 'static)) -> Option<DbErr> {
    let error = driver_error(error)?;
    let is_broken = is_lost_connection(error)
        || match code(error) {
            Some(DriverCode::Sqlite(code)) => sqlite::BROKEN.contains(&code),
            Some(DriverCode::Postgres(state)) => {
                state == READ_ONLY
                    || state == DISK_FULL
                    || (state != STATEMENT_TIMEOUT
                        && ["08", "57", "58"]
                            .iter()
                            .any(|class| state.starts_with(class)))
            }
            None => false,
        };
    is_broken.then(|| DbErr::Query(RuntimeErr::SqlxError(Arc::clone(error))))
}

/// Whether this is a deadlock or serialization failure: the transaction was rolled back and may be retried.
pub(super) fn is_serialization_conflict(error: &(dyn Error + 'static)) -> bool {
    has_state(error, &SERIALIZATION_CONFLICTS)
}

/// Whether a lock was not available in time.
pub(super) fn is_lock_timeout(error: &(dyn Error + 'static)) -> bool {
    has_state(error, &LOCK_TIMEOUTS)
}

fn has_state(error: &(dyn Error + 'static), states: &[&str]) -> bool {
    matches!(
        driver_error(error).and_then(|error| code(error)),
        Some(DriverCode::Postgres(state)) if states.contains(&state.as_str())
    )
}

/// Whether a server responded, even if with an error; not a server that is starting or shutting down.
pub(super) fn is_answer(error: &sqlx::Error) -> bool {
    matches!(code(error), Some(DriverCode::Postgres(state)) if !state.starts_with("57"))
}

/// Returns the driver's error among the causes of an error.
fn driver_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Arc<sqlx::Error>> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(
            DbErr::Conn(RuntimeErr::SqlxError(found))
            | DbErr::Exec(RuntimeErr::SqlxError(found))
            | DbErr::Query(RuntimeErr::SqlxError(found)),
        ) = error.downcast_ref()
        {
            return Some(found);
        }
        // A transparent variant skips the `DbErr` itself in the chain of causes.
        if let Some(RuntimeErr::SqlxError(found)) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Returns why the database is not writable, in words that reveal no internals of the server.
pub(super) fn reason(error: &DbErr) -> &'static str {
    match driver_error(error).map(|error| (code(error), is_lost_connection(error))) {
        Some((Some(DriverCode::Sqlite(sqlite::FULL)), _)) => "its disk is full",
        Some((Some(DriverCode::Sqlite(sqlite::IOERR)), _)) => "its disk fails",
        Some((Some(DriverCode::Sqlite(sqlite::READONLY)), _)) => "it is read-only",
        Some((Some(DriverCode::Sqlite(sqlite::BUSY | sqlite::LOCKED)), _)) => {
            "another process locks it"
        }
        Some((Some(DriverCode::Sqlite(sqlite::CANTOPEN)), _)) => "its file cannot be opened",
        Some((Some(DriverCode::Postgres(state)), _)) => match state.as_str() {
            READ_ONLY => "it is read-only",
            DISK_FULL => "its disk is full",
            state if state.starts_with("58") => "its disk fails",
            state if state.starts_with("57") => "it is shutting down or starting",
            _ => "it refuses to commit",
        },
        Some((_, true)) => "the connection to it is lost",
        _ => "it cannot begin or commit",
    }
}

/// Marks an error of BEGIN, COMMIT or ROLLBACK as an error of the connection, so that it counts as transient.
pub(super) fn of_connection(error: DbErr) -> DbErr {
    match error {
        DbErr::Exec(cause) | DbErr::Query(cause) => DbErr::Conn(cause),
        other => other,
    }
}

/// Copies an error. The driver's errors are shared; SeaORM's are not `Clone`.
pub(crate) fn copy(error: &DbErr) -> DbErr {
    match error {
        DbErr::Exec(RuntimeErr::SqlxError(shared)) => {
            DbErr::Exec(RuntimeErr::SqlxError(shared.clone()))
        }
        DbErr::Query(RuntimeErr::SqlxError(shared)) => {
            DbErr::Query(RuntimeErr::SqlxError(shared.clone()))
        }
        DbErr::Conn(RuntimeErr::SqlxError(shared)) => {
            DbErr::Conn(RuntimeErr::SqlxError(shared.clone()))
        }
        DbErr::Custom(text) => DbErr::Custom(text.clone()),
        other => DbErr::Conn(RuntimeErr::Internal(other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_that_pass_are_transient_and_those_of_the_statement_are_not() {
        for state in [
            "25006", "58030", "40001", "40P01", "57P01", "57P03", "57014", "08006", "53100",
            "53300", "55P03", "25P03",
        ] {
            assert!(is_transient_state(state), "{state}");
        }
        for state in ["23505", "42P01", "22P02", "25P02", "XX000"] {
            assert!(!is_transient_state(state), "{state}");
        }
    }
}
