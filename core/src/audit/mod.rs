//! The audit: what must hold in every installation, counted out, and mended when asked.
//!
//! Owns four promises, by the names the tests give them: I1, a stored file's object is there as its row says; I2,
//! stored files and `file.stored` events are one to one; I5, no bytes lie where no row speaks of them; I7, nothing
//! that is due has waited longer than two sweep periods. It looks at the whole installation in pages, so memory does
//! not grow with it. What looks wrong is looked at once more before it is called so: the installation goes on working
//! meanwhile, and a file finalized between two pages is no offender.
//!
//! It changes nothing unless asked to repair, and then does what finalize, the sweep or a purge would have done, each
//! repair fenced like theirs. A missing object cannot be mended and is only told.

mod due;
mod events;
mod file_id_set;
mod leftovers;
mod objects;
pub(crate) mod orphans;
mod record;
mod report;

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

/// Rows looked at in one query.
const PAGE: u64 = 500;

/// What an audit is to do beyond looking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditOptions {
    /// Mend what can be mended.
    pub repair: bool,
    /// Read every object again for its SHA-256: as much work as finalizing every file once more.
    pub deep: bool,
    /// Repair as many objects without a row, even when they are more than 100 and more than 1 % of all.
    pub force_orphans: Option<u64>,
}

/// The parts of an audit, in their order.
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
    /// For a progress bar.
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

/// Somebody who watches an audit.
pub trait AuditObserver: Send + Sync {
    /// A step begins, of about `total` things if that is known.
    fn step_started(&self, step: AuditStep, total: Option<u64>);

    /// So many more were looked at.
    fn checked_more(&self, count: u64);

    /// Found, and seen again; and what was done about it.
    fn found(&self, violation: &Violation, repair: &RepairOutcome);
}

/// Nobody watches.
#[derive(Clone, Copy, Debug)]
pub struct NoObserver;

impl AuditObserver for NoObserver {
    fn step_started(&self, _: AuditStep, _: Option<u64>) {}
    fn checked_more(&self, _: u64) {}
    fn found(&self, _: &Violation, _: &RepairOutcome) {}
}

/// Why an audit could not come to its end; what it had repaired stays repaired.
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
    #[error("the installation's marker could not be looked at")]
    Installation(#[from] InstallationError),
}

/// Audits the whole installation, now, and records what was found. Storage is listed once, a thousand objects in a
/// request; only files whose objects the list did not show as they should be are looked up one by one.
///
/// # Errors
/// [`AuditError`] when database, storage or staging cannot be read to the end.
pub async fn audit(
    app: &App,
    options: AuditOptions,
    observer: &dyn AuditObserver,
) -> Result<AuditReport, AuditError> {
    let started = app.clock.now();
    record::begin(app, started, started).await?;
    run(app, options, observer, started).await
}

/// Runs the audit that is due at this second since the Unix epoch, unless one has begun since and came to its end;
/// none then. It repairs nothing.
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

/// One audit under way.
struct Audit<'a> {
    app: &'a App,
    options: AuditOptions,
    observer: &'a dyn AuditObserver,
    /// Files taken in later are the next audit's: on a busy installation this one must come to an end too.
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

    /// One that was seen twice; `repair` is what came of mending it.
    async fn found(&mut self, violation: Violation, repair: RepairOutcome) -> Result<(), DbErr> {
        self.observer.found(&violation, &repair);
        if let RepairOutcome::Done(what) = repair {
            record::repaired(self.app, &violation, what).await?;
        }
        self.report.add(violation, &repair);
        Ok(())
    }
}

/// An error and its causes on one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
