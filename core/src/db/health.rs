//! Whether the database accepts writes, as readiness reports it: unhealthy from the first failed write to the next
//! success.

use super::transient::reason;
use sea_orm::DbErr;
use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// A write that takes longer is reported as a fault while it lasts.
const STUCK_THRESHOLD: Duration = Duration::from_secs(10);

/// Why the database is not writable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteFault {
    /// A reason that reveals no internals of the server.
    pub reason: String,
    /// The database's error message, for the log.
    pub cause: String,
}

#[derive(Debug, Default)]
pub(super) struct WriteHealth {
    /// Saves taking the lock in the normal case.
    is_faulty: AtomicBool,
    fault: Mutex<Option<WriteFault>>,
    writing_since: Mutex<Option<Instant>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl WriteHealth {
    /// Records that the database is not writable. Returns true if that was not known yet.
    pub(super) fn fail(&self, error: &DbErr) -> bool {
        let mut fault = lock(&self.fault);
        self.is_faulty.store(true, Ordering::Release);
        let before = fault.replace(WriteFault {
            reason: reason(error).to_owned(),
            cause: error.to_string(),
        });
        before.is_none()
    }

    /// Records a successful write. Returns true if a fault was known.
    pub(super) fn succeed(&self) -> bool {
        let was_faulty = self.is_faulty.swap(false, Ordering::AcqRel);
        if was_faulty {
            *lock(&self.fault) = None;
        }
        was_faulty
    }

    pub(super) fn is_faulty(&self) -> bool {
        self.is_faulty.load(Ordering::Acquire)
    }

    /// Records that the single writer begins or ends a transaction.
    pub(super) fn writing(&self, begins: bool) {
        *lock(&self.writing_since) = begins.then(Instant::now);
    }

    /// Returns why the database is not writable.
    pub(super) fn fault(&self) -> Option<WriteFault> {
        if let Some(fault) = lock(&self.fault).clone() {
            return Some(fault);
        }
        let stuck = (*lock(&self.writing_since))?.elapsed();
        (stuck > STUCK_THRESHOLD).then(|| WriteFault {
            reason: format!("a write has taken {} s so far", stuck.as_secs()),
            cause: "the disk, or another process that locks the database".to_owned(),
        })
    }
}
