//! The audit: checks the invariants that must hold in every installation, and repairs violations on request.
//!
//! Checks four invariants, numbered as in the tests: I1, the object of a stored file exists as its row says; I2, stored
//! files and `file.stored` events correspond one to one; I5, there are no bytes that no row refers to; I7, nothing that
//! is due has waited longer than two sweep periods. The whole installation is checked in pages, so memory does not grow
//! with it. The installation keeps running meanwhile, so anything that looks wrong is checked a second time before it
//! is reported: a file finalized between two pages is not a violation.
//!
//! The audit changes nothing unless asked to repair. A repair does what finalize, the sweep or a purge would have done,
//! and is fenced in the same way. A missing object cannot be repaired, only reported.

mod due;
mod events;
mod file_id_set;
mod leftovers;
mod objects;
pub(crate) mod orphans;
mod record;
mod report;
mod stored_files;

use crate::{
    app::App,
    installation::{self, InstallationError, MarkedLocation, MarkerError},
    staging::StagingError,
    storage::StorageError,
};
use entity::{FileId, Timestamp};
use file_id_set::FileIdSet;
use futures::future::BoxFuture;
pub use record::{AuditSummary, LastAudit, latest};
pub use report::{AuditReport, Invariant, RepairOutcome, Violation};
use sea_orm::DbErr;
use std::error::Error;

/// Rows read by one query.
const PAGE: u64 = 500;

/// What an audit does besides checking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditOptions {
    /// Repair what can be repaired.
    pub repair: bool,
    /// Read every object again and compute its SHA-256, which is as much work as finalizing every file again.
    pub deep: bool,
    /// Repair up to this many objects without a row, even when they are more than 100 and more than 1 % of all objects.
    pub force_orphans: Option<u64>,
}

/// The steps of an audit, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditStep {
    Files,
    Events,
    Objects,
    Staging,
    UnfinishedWrites,
    Due,
}

impl AuditStep {
    /// A label for progress output.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Files => "stored files",
            Self::Events => "events",
            Self::Objects => "objects",
            Self::Staging => "staging",
            Self::UnfinishedWrites => "unfinished objects",
            Self::Due => "due rows",
        }
    }
}

/// Observes the progress of an audit.
pub trait AuditObserver: Send + Sync {
    /// A step started; `total` is the approximate number of items, if known.
    fn step_started(&self, step: AuditStep, total: Option<u64>);

    /// This many more items were checked.
    fn checked_more(&self, count: u64);

    /// A violation was found and confirmed; `repair` is what was done about it.
    fn found(&self, violation: &Violation, repair: &RepairOutcome);
}

/// Ignores all progress.
#[derive(Clone, Copy, Debug)]
pub struct NoObserver;

impl AuditObserver for NoObserver {
    fn step_started(&self, _: AuditStep, _: Option<u64>) {}
    fn checked_more(&self, _: u64) {}
    fn found(&self, _: &Violation, _: &RepairOutcome) {}
}

/// Why an audit could not be completed. Repairs made before the error remain.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("the rows could not be read")]
    Database(#[from] DbErr),
    #[error("storage could not be read")]
    Storage(#[from] StorageError),
    #[error("staging could not be read")]
    Staging(#[from] StagingError),
    #[error("{0} cannot be audited")]
    Marker(MarkedLocation, #[source] MarkerError),
    #[error("the installation's marker could not be checked")]
    Installation(#[from] InstallationError),
}

/// Audits the whole installation now and records the result. Storage is listed once, a thousand objects per request;
/// only files whose objects were not listed as expected are looked up one by one.
///
/// # Errors
/// [`AuditError`] when the database, storage or staging cannot be read to the end.
pub async fn audit(
    app: &App,
    options: AuditOptions,
    observer: &dyn AuditObserver,
) -> Result<AuditReport, AuditError> {
    let started = app.clock.now();
    record::begin(app, started, started).await?;
    run(app, options, observer, started).await
}

/// Runs the audit that is due at this second since the Unix epoch. Returns `None` if another audit has started since
/// and finished. Repairs nothing.
///
/// # Errors
/// As [`audit`].
pub fn audit_at(app: &App, tick: u64) -> BoxFuture<'_, Result<Option<AuditReport>, AuditError>> {
    Box::pin(async move {
        let due = i64::try_from(tick)
            .ok()
            .and_then(|second| Timestamp::from_timestamp(second, 0));
        let started = app.clock.now();
        if !record::begin(app, started, due.unwrap_or(started)).await? {
            return Ok(None);
        }
        run(app, AuditOptions::default(), &NoObserver, started)
            .await
            .map(Some)
    })
}

async fn run(
    app: &App,
    options: AuditOptions,
    observer: &dyn AuditObserver,
    started: Timestamp,
) -> Result<AuditReport, AuditError> {
    let mut audit = Audit {
        app,
        options,
        observer,
        until: FileId::generate(),
        seen: FileIdSet::default(),
        report: AuditReport::default(),
    };
    for place in MarkedLocation::ALL {
        if !installation::marker_visible(app, place).await? {
            return Err(AuditError::Marker(place, MarkerError::Missing));
        }
    }
    leftovers::check(&mut audit).await?;
    objects::check(&mut audit).await?;
    events::check(&mut audit).await?;
    due::check(&mut audit).await?;
    let Audit { report, .. } = audit;
    record::finish(app, started, options, &report).await?;
    Ok(report)
}

/// An audit in progress.
struct Audit<'a> {
    app: &'a App,
    options: AuditOptions,
    observer: &'a dyn AuditObserver,
    /// Files with later ids are left to the next audit, so that this one ends even on a busy installation.
    until: FileId,
    seen: FileIdSet,
    report: AuditReport,
}

impl Audit<'_> {
    fn step_started(&self, step: AuditStep, total: Option<u64>) {
        self.observer.step_started(step, total);
    }

    fn checked_more(&mut self, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.report.checked += count;
        self.observer.checked_more(count);
    }

    /// Reports a confirmed violation; `repair` is the outcome of repairing it.
    async fn found(&mut self, violation: Violation, repair: RepairOutcome) -> Result<(), DbErr> {
        self.observer.found(&violation, &repair);
        if let RepairOutcome::Done(what) = repair {
            record::repaired(self.app, &violation, what).await?;
        }
        self.report.add(violation, &repair);
        Ok(())
    }
}

/// The error and its causes on one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
