//! The capacity of staging: a quota for all staged bytes, and a minimum of free space on its disk.

use super::{StagingError, StagingUsage};
use crate::config::ByteSize;
use std::{
    fmt, io,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};
use tokio::sync::Mutex;

/// A limit of staging that is reached; uploads are rejected until workers have freed space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StagingShortage {
    /// `staging.quota` is used up; in bytes.
    Quota { used: u64, quota: u64 },
    /// The disk has less free space than `staging.min_free`; in bytes.
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

/// The limits, and the current usage as far as it is known.
#[derive(Debug)]
pub(crate) struct Capacity {
    quota: Option<u64>,
    min_free: u64,
    /// The folder whose disk is checked; `None` for a bucket.
    folder: Option<PathBuf>,
    /// Maximum age of a measurement, since measuring examines every staged file.
    fresh: Duration,
    measured: Mutex<Option<Measurement>>,
    /// Bytes this process has received since it started. Bytes received by others show up with the next measurement.
    taken_in: AtomicU64,
    /// How far [`Self::taken_in`] may grow before the next measurement, for bodies of unknown length.
    allowed: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
struct Measurement {
    at: Instant,
    used: u64,
    /// [`Capacity::taken_in`] when the measurement started.
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

    /// Fails with [`StagingError::Full`] when there is no room for `more` bytes of this body, none of which has been
    /// counted yet. `measure` returns the total number of staged bytes; it runs only with a quota, and only when the
    /// last measurement is too old.
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

    /// Returns how many bytes are staged, as far as this process knows.
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
        // Concurrent callers wait for the measurement in progress.
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

    /// Counts bytes that are about to be written, or rejects them.
    pub(crate) fn count(&self, bytes: u64) -> Result<(), StagingError> {
        let before = self.taken_in.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.allowed.load(Ordering::Relaxed) {
            self.taken_in.fetch_sub(bytes, Ordering::Relaxed);
            return Err(StagingError::Full);
        }
        Ok(())
    }

    /// Fails when `more` bytes would leave less free space than the minimum. Blocks for one system call.
    pub(crate) fn check_free(&self, more: u64) -> Result<(), StagingError> {
        match self
            .free()
            .map_err(StagingError::io("determine its free space"))?
        {
            Some(free) if free < self.min_free.saturating_add(more) => Err(StagingError::Full),
            _ => Ok(()),
        }
    }

    /// Returns the free space for an unprivileged process, in bytes.
    pub(crate) fn free(&self) -> io::Result<Option<u64>> {
        let Some(folder) = &self.folder else {
            return Ok(None);
        };
        let disk = rustix::fs::statvfs(folder)?;
        Ok(Some(disk.f_bavail.saturating_mul(disk.f_frsize)))
    }

    /// Returns the limit that is reached, if any. Measures only if there is a quota.
    pub(crate) async fn shortage(
        &self,
        measure: impl Future<Output = Result<u64, StagingError>>,
    ) -> Result<Option<StagingShortage>, StagingError> {
        let free = self
            .free()
            .map_err(StagingError::io("determine its free space"))?;
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

    /// Returns the usage for the dashboard and the metrics; it may be up to `max_age` old.
    pub(crate) async fn usage(
        &self,
        max_age: Duration,
        measure: impl Future<Output = Result<u64, StagingError>>,
    ) -> Result<StagingUsage, StagingError> {
        let used = self.used_within(max_age.max(self.fresh), measure).await?;
        let free = self
            .free()
            .map_err(StagingError::io("determine its free space"))?;
        Ok(StagingUsage {
            used,
            free,
            quota: self.quota,
        })
    }
}
