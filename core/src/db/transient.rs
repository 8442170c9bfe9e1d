//! What an error of the database says: whether the statement may be repeated, and whether the database takes writes.

use sea_orm::{DbErr, RuntimeErr, sqlx};
use std::{error::Error, sync::Arc};

/// SQLite result codes by their low byte (sqlite.org/rescode.html): the database is locked or busy, the disk failed, is
/// full or read-only, the file cannot be opened, or another connection changed the schema.
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

    /// The connection that was answered this must not be used again.
    pub(super) const BROKEN: [u32; 4] = [READONLY, IOERR, FULL, CANTOPEN];
}

/// SQLSTATE classes (PostgreSQL, appendix A): connection exceptions, transaction rollback, insufficient resources,
/// operator intervention, system error.
const TRANSIENT_CLASSES: [&str; 5] = ["08", "40", "53", "57", "58"];

/// A read-only transaction: the server was demoted, or told so. In a transaction that waited too long: the lock, the
/// statement, the idle session.
const TRANSIENT_STATES: [&str; 4] = [READ_ONLY, "55P03", "25P03", "25P04"];

const READ_ONLY: &str = "25006";
const DISK_FULL: &str = "53100";

/// One of two transactions that cannot both commit; the other may by now have done so.
const SERIALIZATION_CONFLICTS: [&str; 2] = ["40001", "40P01"];

/// A lock was not free in time, or not at all without a deadlock.
const LOCK_TIMEOUTS: [&str; 2] = ["55P03", "40P01"];

/// The statement took longer than `database.statement_timeout`.
const STATEMENT_TIMEOUT: &str = "57014";

/// The codes of SQLite are numbers, those of PostgreSQL have five characters.
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

/// True when the same statement may well succeed a moment later: the database is away, busy, full, read-only or
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

/// True when the disk of the database has no room.
#[must_use]
pub fn is_full(error: &DbErr) -> bool {
    match driver_error(error).and_then(|error| code(error)) {
        Some(DriverCode::Sqlite(code)) => code == sqlite::FULL,
        Some(DriverCode::Postgres(state)) => state == DISK_FULL,
        None => false,
    }
}

/// The error itself, when the connection that answered it cannot be trusted and a new one may be better off: it is
/// lost, its server takes no writes, or its disk fails.
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

/// True for a deadlock or a serialization failure: the transaction was rolled back and may be run again.
pub(super) fn is_serialization_conflict(error: &(dyn Error + 'static)) -> bool {
    has_state(error, &SERIALIZATION_CONFLICTS)
}

/// True when a lock was not free in time.
pub(super) fn is_lock_timeout(error: &(dyn Error + 'static)) -> bool {
    has_state(error, &LOCK_TIMEOUTS)
}

fn has_state(error: &(dyn Error + 'static), states: &[&str]) -> bool {
    matches!(
        driver_error(error).and_then(|error| code(error)),
        Some(DriverCode::Postgres(state)) if states.contains(&state.as_str())
    )
}

/// True when a server answered, though not as it was asked to; not one that is starting or ending.
pub(super) fn is_answer(error: &sqlx::Error) -> bool {
    matches!(code(error), Some(DriverCode::Postgres(state)) if !state.starts_with("57"))
}

/// What the database's driver said, somewhere among the causes of an error.
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
        // An enum whose variant is transparent passes over the `DbErr` itself.
        if let Some(RuntimeErr::SqlxError(found)) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Why nothing can be written, in words that name nothing of the inside of the server.
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

/// An error of BEGIN, COMMIT or ROLLBACK: it is the connection's, so the next one may do better.
pub(super) fn of_connection(error: DbErr) -> DbErr {
    match error {
        DbErr::Exec(cause) | DbErr::Query(cause) => DbErr::Conn(cause),
        other => other,
    }
}

/// The same error once more: the driver's errors are shared, and SeaORM's are not to be cloned.
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
