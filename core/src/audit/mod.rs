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
mod leftovers;
mod objects;
pub(crate) mod orphans;
mod record;
mod report;
mod seen;

use crate::{
    app::App,
    installation::{self, InstallationError, MarkerError, Place},
    staging::StagingError,
    storage::StorageError,
};
use entity::{FileId, Timestamp};
use futures::future::BoxFuture;
pub use record::{Latest, Summary, latest};
pub use report::{Invariant, Offender, Repair, Report};
use sea_orm::DbErr;
use seen::SeenFiles;
use std::error::Error;

/// Rows looked at in one query.
const PAGE: u64 = 500;

/// What an audit is to do beyond looking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Mend what can be mended.
    pub repair: bool,
    /// Read every object again for its SHA-256: as much work as finalizing every file once more.
    pub deep: bool,
    /// Repair as many objects without a row, even when they are more than 100 and more than 1 % of all.
    pub force_orphans: Option<u64>,
}

/// The parts of an audit, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Files,
    Events,
    Objects,
    Staging,
    Unfinished,
    Due,
}

impl Step {
    /// For a progress bar.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Files => "stored files",
            Self::Events => "events",
            Self::Objects => "objects",
            Self::Staging => "staging",
            Self::Unfinished => "unfinished objects",
            Self::Due => "due rows",
        }
    }
}

/// Somebody who watches an audit.
pub trait Watch: Send + Sync {
    /// A step begins, of about `total` things if that is known.
    fn begins(&self, step: Step, total: Option<u64>);

    /// So many more were looked at.
    fn looked_at(&self, count: u64);

    /// Found, and seen again; and what was done about it.
    fn found(&self, offender: &Offender, repair: &Repair);
}

/// Nobody watches.
#[derive(Clone, Copy, Debug)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn begins(&self, _: Step, _: Option<u64>) {}
    fn looked_at(&self, _: u64) {}
    fn found(&self, _: &Offender, _: &Repair) {}
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
    Marker(Place, #[source] MarkerError),
    #[error("the installation's marker could not be looked at")]
    Installation(#[from] InstallationError),
}

/// Audits the whole installation, now, and records what was found. Storage is listed once, a thousand objects in a
/// request; only files whose objects the list did not show as they should be are looked up one by one.
///
/// # Errors
/// [`AuditError`] when database, storage or staging cannot be read to the end.
pub async fn audit(app: &App, options: Options, watch: &dyn Watch) -> Result<Report, AuditError> {
    let started = app.clock.now();
    record::begin(app, started, started).await?;
    run(app, options, watch, started).await
}

/// Runs the audit that is due at this second since the Unix epoch, unless one has begun since and came to its end;
/// none then. It repairs nothing.
///
/// # Errors
/// As [`audit`].
pub fn audit_at(app: &App, tick: u64) -> BoxFuture<'_, Result<Option<Report>, AuditError>> {
    Box::pin(async move {
        let due = i64::try_from(tick)
            .ok()
            .and_then(|second| Timestamp::from_timestamp(second, 0));
        let started = app.clock.now();
        if !record::begin(app, started, due.unwrap_or(started)).await? {
            return Ok(None);
        }
        run(app, Options::default(), &Unwatched, started)
            .await
            .map(Some)
    })
}

async fn run(
    app: &App,
    options: Options,
    watch: &dyn Watch,
    started: Timestamp,
) -> Result<Report, AuditError> {
    let mut audit = Audit {
        app,
        options,
        watch,
        until: FileId::generate(),
        seen: SeenFiles::default(),
        report: Report::default(),
    };
    for place in Place::ALL {
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
    options: Options,
    watch: &'a dyn Watch,
    /// Files taken in later are the next audit's: on a busy installation this one must come to an end too.
    until: FileId,
    seen: SeenFiles,
    report: Report,
}

impl Audit<'_> {
    fn begins(&self, step: Step, total: Option<u64>) {
        self.watch.begins(step, total);
    }

    fn looked_at(&mut self, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.report.checked += count;
        self.watch.looked_at(count);
    }

    /// One that was seen twice; `repair` is what came of mending it.
    async fn found(&mut self, offender: Offender, repair: Repair) -> Result<(), DbErr> {
        self.watch.found(&offender, &repair);
        if let Repair::Done(what) = repair {
            record::repaired(self.app, &offender, what).await?;
        }
        self.report.add(offender, &repair);
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
