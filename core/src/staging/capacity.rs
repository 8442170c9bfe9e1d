//! How full staging may get: a quota over all that waits, and a floor of free space on its disk.

use super::{StagingError, StagingUsage};
use crate::config::ByteSize;
use std::{
    fmt, io,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

/// A limit of staging that is reached: uploads are refused until workers have made room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StagingShortage {
    /// As much is staged as `staging.quota` allows; in bytes.
    Quota { used: u64, quota: u64 },
    /// The disk has less free space than `staging.min_free` keeps; in bytes.
    MinFree { free: u64, min_free: u64 },
}

impl fmt::Display for StagingShortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Quota { used, quota } => write!(
                f,
                "staging is full: {} of staging.quota {} are in use; workers make room as they store files: run more \
                 of them, or raise staging.quota",
                ByteSize(used),
                ByteSize(quota)
            ),
            Self::MinFree { free, min_free } => write!(
                f,
                "staging is full: its disk has {} free and staging.min_free keeps {}; free space on the disk, or lower \
                 staging.min_free",
                ByteSize(free),
                ByteSize(min_free)
            ),
        }
    }
}

/// The bounds, and what is known of how near they are.
#[derive(Debug)]
pub(crate) struct Capacity {
    quota: Option<u64>,
    min_free: u64,
    /// The folder whose disk counts; none for a bucket.
    folder: Option<PathBuf>,
    /// How old a measurement may be: measuring looks at every staged file.
    fresh: Duration,
    measured: Mutex<Option<Measurement>>,
    /// Bytes this process took in since it was made; what others take in shows with the next measurement.
    taken_in: AtomicU64,
    /// How far [`Self::taken_in`] may go before the next measurement: for bodies that do not say how long they are.
    allowed: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
struct Measurement {
    at: Instant,
    used: u64,
    /// [`Capacity::taken_in`] when it was begun.
    taken_in: u64,
}

impl Capacity {
    pub(crate) fn new(
        quota: Option<u64>,
        min_free: u64,
        folder: Option<PathBuf>,
        fresh: Duration,
    ) -> Self {
        Self {
            quota,
            min_free,
            folder,
            fresh,
            measured: Mutex::default(),
            taken_in: AtomicU64::new(0),
            allowed: AtomicU64::new(u64::MAX),
        }
    }

    /// Refuses with [`StagingError::Full`] when there is no room for `more` bytes of this body, of which none has
    /// been counted yet. `measure` tells how much is staged in all; it runs only under a quota, and only when the
    /// last measurement is stale.
    pub(crate) async fn admit(
        &self,
        more: u64,
        measure: impl Future<Output = Result<u64, StagingError>>,
    ) -> Result<(), StagingError> {
        let Some(quota) = self.quota else {
            return Ok(());
        };
        if self.used(measure).await?.saturating_add(more) > quota {
            return Err(StagingError::Full);
        }
        Ok(())
    }

    /// How much is staged, as far as this process knows.
    async fn used(
        &self,
        measure: impl Future<Output = Result<u64, StagingError>>,
    ) -> Result<u64, StagingError> {
        self.used_within(self.fresh, measure).await
    }

    async fn used_within(
        &self,
        max_age: Duration,
        measure: impl Future<Output = Result<u64, StagingError>>,
    ) -> Result<u64, StagingError> {
        // Those who come while one measures wait for what it finds.
        let mut measured = self.measured.lock().await;
        let known = match *measured {
            Some(known) if known.at.elapsed() < max_age => known,
            _ => {
                let taken_in = self.taken_in.load(Ordering::Relaxed);
                let used = measure.await?;
                let left = self
                    .quota
                    .map_or(u64::MAX, |quota| quota.saturating_sub(used));
                let allowed = taken_in.saturating_add(left);
                self.allowed.store(allowed, Ordering::Relaxed);
                let at = Instant::now();
                *measured.insert(Measurement { at, used, taken_in })
            }
        };
        let since = self.taken_in.load(Ordering::Relaxed) - known.taken_in;
        Ok(known.used.saturating_add(since))
    }

    /// Counts bytes that are about to be written, or refuses them.
    pub(crate) fn count(&self, bytes: u64) -> Result<(), StagingError> {
        let before = self.taken_in.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.allowed.load(Ordering::Relaxed) {
            self.taken_in.fetch_sub(bytes, Ordering::Relaxed);
            return Err(StagingError::Full);
        }
        Ok(())
    }

    /// Refuses when `more` bytes would leave less than the floor on the disk. Blocks for one system call.
    pub(crate) fn check_free(&self, more: u64) -> Result<(), StagingError> {
        match self
            .free()
            .map_err(StagingError::io("tell its free space"))?
        {
            Some(free) if free < self.min_free.saturating_add(more) => Err(StagingError::Full),
            _ => Ok(()),
        }
    }

    /// Free space for a process that is not root, in bytes.
    pub(crate) fn free(&self) -> io::Result<Option<u64>> {
        let Some(folder) = &self.folder else {
            return Ok(None);
        };
        let disk = rustix::fs::statvfs(folder)?;
        Ok(Some(disk.f_bavail.saturating_mul(disk.f_frsize)))
    }

    /// The limit that is reached, if one is. Measures only where there is a quota.
    pub(crate) async fn shortage(
        &self,
        measure: impl Future<Output = Result<u64, StagingError>>,
    ) -> Result<Option<StagingShortage>, StagingError> {
        let free = self
            .free()
            .map_err(StagingError::io("tell its free space"))?;
        if let Some(free) = free
            && free < self.min_free
        {
            let min_free = self.min_free;
            return Ok(Some(StagingShortage::MinFree { free, min_free }));
        }
        let Some(quota) = self.quota else {
            return Ok(None);
        };
        let used = self.used(measure).await?;
        Ok((used >= quota).then_some(StagingShortage::Quota { used, quota }))
    }

    /// For the dashboard and the metrics; what is used may be as old as `max_age`.
    pub(crate) async fn usage(
        &self,
        max_age: Duration,
        measure: impl Future<Output = Result<u64, StagingError>>,
    ) -> Result<StagingUsage, StagingError> {
        let used = self.used_within(max_age.max(self.fresh), measure).await?;
        let free = self
            .free()
            .map_err(StagingError::io("tell its free space"))?;
        Ok(StagingUsage {
            used,
            free,
            quota: self.quota,
        })
    }
}
