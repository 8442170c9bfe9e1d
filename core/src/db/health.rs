//! Whether the database takes writes, as readiness reports it: from the first write that failed until one succeeded.

use super::transient::reason;
use sea_orm::DbErr;
use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// A write that takes longer is reported while it lasts.
const STUCK_THRESHOLD: Duration = Duration::from_secs(10);

/// Why nothing can be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteFault {
    /// In words that name nothing of the inside of the server.
    pub reason: String,
    /// What the database said, for the log.
    pub cause: String,
}

#[derive(Debug, Default)]
pub(super) struct WriteHealth {
    /// Spares the usual write the lock.
    is_faulty: AtomicBool,
    fault: Mutex<Option<WriteFault>>,
    writing_since: Mutex<Option<Instant>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl WriteHealth {
    /// Nothing can be written, because of this; true when that is news.
    pub(super) fn fail(&self, error: &DbErr) -> bool {
        let mut fault = lock(&self.fault);
        self.is_faulty.store(true, Ordering::Release);
        let before = fault.replace(WriteFault {
            reason: reason(error).to_owned(),
            cause: error.to_string(),
        });
        if before.is_none() {
            tracing::error!(%error, "the database takes no writes; its connection is replaced");
        }
        before.is_none()
    }

    /// Something was written.
    pub(super) fn succeed(&self) {
        if self.is_faulty.swap(false, Ordering::AcqRel) {
            *lock(&self.fault) = None;
            tracing::info!("the database takes writes again");
        }
    }

    pub(super) fn is_faulty(&self) -> bool {
        self.is_faulty.load(Ordering::Acquire)
    }

    /// The one writer begins or ends a transaction.
    pub(super) fn writing(&self, begins: bool) {
        *lock(&self.writing_since) = begins.then(Instant::now);
    }

    /// Why nothing can be written.
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
