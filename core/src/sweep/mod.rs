//! The sweep: resumes everything that is stuck and removes leftovers.
//!
//! It is triggered by time only, and has no input and no memory: it works on the current state, so it may run twice,
//! late, or concurrently. Each step reads pages from an index, and a failing step does not prevent the others from
//! running. The sweep only pushes jobs and cleans up; the actual work is done where it always is.

pub(crate) mod candidates;
mod files;
pub(crate) mod leftovers;
mod record;

pub use crate::periodic::LastRun;
use crate::{
    activity, app::App, deliver, files::ExpiringError, idempotency, outbox, upload_links, uploads,
};
use entity::Timestamp;
pub use record::last_run;
use sea_orm::DbErr;
use serde::Serialize;
use std::{error::Error, fmt, future::Future};

/// Rows read per query.
const PAGE: u64 = 500;

/// Maximum number of pages per step and run; the rest is left to the next run.
const MAX_PAGES: usize = 400;

/// The result of a run; numbers of rows or objects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SweepReport {
    /// Staged files without a valid lease, pushed again.
    pub staged_pushed: u64,
    /// Files whose lease had expired, pushed again.
    pub leases_rescued: u64,
    /// Due deliveries, pushed again.
    pub deliveries_pushed: u64,
    /// Stored files whose expiry was announced.
    pub expiring_announced: u64,
    /// Expired stored files, deleted.
    pub files_expired: u64,
    /// Uploads that received nothing for too long, expired.
    pub uploads_expired: u64,
    /// Closed uploads past their retention, deleted.
    pub uploads_forgotten: u64,
    /// Failed and deleted files that still had bytes, pushed to be purged.
    pub purges_pushed: u64,
    /// Unused staged bytes, removed.
    pub staging_removed: u64,
    /// Temporary files and open multipart uploads, removed.
    pub unfinished_removed: u64,
    /// Objects set aside by the audit seven days ago, removed.
    pub orphans_removed: u64,
    /// Pending deliveries of deleted endpoints, failed.
    pub deliveries_ended: u64,
    /// Events past `outbox.retention`, deleted.
    pub events_deleted: u64,
    /// Stored responses of `Idempotency-Key`s past their retention, deleted.
    pub keys_forgotten: u64,
    /// Minute counts older than two weeks, deleted.
    pub minutes_forgotten: u64,
    /// Upload links a week past their expiry, deleted.
    pub links_forgotten: u64,
    /// Failed steps, with their errors.
    pub faults: Vec<String>,
}

impl SweepReport {
    fn counts(&self) -> [(u64, &'static str); 16] {
        [
            (self.staged_pushed, "staged files pushed"),
            (self.leases_rescued, "expired leases rescued"),
            (self.deliveries_pushed, "due deliveries pushed"),
            (self.expiring_announced, "files about to expire announced"),
            (self.files_expired, "files expired"),
            (self.uploads_expired, "uploads expired"),
            (self.uploads_forgotten, "closed uploads deleted"),
            (self.purges_pushed, "purges pushed"),
            (self.staging_removed, "staging leftovers removed"),
            (self.unfinished_removed, "unfinished writes removed"),
            (
                self.orphans_removed,
                "objects set aside by the audit removed",
            ),
            (
                self.deliveries_ended,
                "deliveries of deleted endpoints failed",
            ),
            (self.events_deleted, "old events deleted"),
            (self.keys_forgotten, "idempotency keys deleted"),
            (self.minutes_forgotten, "old minute counts deleted"),
            (self.links_forgotten, "expired upload links deleted"),
        ]
    }

    /// What was done, on one line.
    #[must_use]
    pub fn log_summary(&self) -> String {
        let done = self.counts().into_iter().filter(|(count, _)| *count > 0);
        let mut done: Vec<String> = done
            .map(|(count, what)| format!("{count} {what}"))
            .collect();
        done.extend(self.faults.iter().map(|fault| format!("fault: {fault}")));
        match done.is_empty() {
            true => "nothing to do".to_owned(),
            false => done.join(", "),
        }
    }
}

impl fmt::Display for SweepReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (count, what) in self.counts() {
            writeln!(f, "{count:>8}  {what}")?;
        }
        self.faults
            .iter()
            .try_for_each(|fault| writeln!(f, "   fault  {fault}"))
    }
}

/// Runs every step once, now, and records the run.
///
/// # Errors
/// Database errors, when not even the start of the sweep can be recorded. All other errors are in the report.
pub async fn sweep(app: &App) -> Result<SweepReport, DbErr> {
    let started = app.clock.now();
    record::begin(app, started, started).await?;
    Ok(run(app, started).await)
}

/// Runs the sweep that is due at this second since the Unix epoch. Returns `None` if another has started since.
///
/// # Errors
/// As [`sweep`].
pub async fn sweep_at(app: &App, tick: u64) -> Result<Option<SweepReport>, DbErr> {
    let due = i64::try_from(tick)
        .ok()
        .and_then(|second| Timestamp::from_timestamp(second, 0));
    let started = app.clock.now();
    let begun = record::begin(app, started, due.unwrap_or(started)).await?;
    Ok(if begun {
        Some(run(app, started).await)
    } else {
        None
    })
}

async fn run(app: &App, started: Timestamp) -> SweepReport {
    let mut report = SweepReport::default();
    report.staged_pushed = note(&mut report, "staged files", files::push_staged(app)).await;
    report.leases_rescued = note(
        &mut report,
        "expired leases",
        files::push_expired_leases(app),
    )
    .await;
    report.deliveries_pushed = note(&mut report, "due deliveries", push_deliveries(app)).await;
    report.expiring_announced = note(&mut report, "expiring files", announce_expiring(app)).await;
    report.files_expired = note(&mut report, "expired files", files::delete_expired(app)).await;
    report.uploads_expired = note(&mut report, "expired uploads", uploads::expire_due(app)).await;
    report.uploads_forgotten =
        note(&mut report, "closed uploads", uploads::forget_closed(app)).await;
    report.purges_pushed = note(&mut report, "purges", files::push_purges(app)).await;
    report.staging_removed = note(&mut report, "staging", leftovers::remove_staging(app)).await;
    report.unfinished_removed = note(
        &mut report,
        "unfinished objects",
        leftovers::remove_unfinished(app),
    )
    .await;
    report.orphans_removed = note(
        &mut report,
        "orphaned objects",
        leftovers::remove_orphans(app),
    )
    .await;
    report.deliveries_ended = note(&mut report, "removed endpoints", end_deliveries(app)).await;
    report.events_deleted = note(&mut report, "old events", delete_events(app)).await;
    report.keys_forgotten = note(&mut report, "idempotency keys", forget_keys(app)).await;
    report.minutes_forgotten = note(
        &mut report,
        "old counts",
        activity::forget(&app.db, &app.clock),
    )
    .await;
    report.links_forgotten = note(
        &mut report,
        "expired upload links",
        upload_links::forget_expired(&app.db, &app.clock),
    )
    .await;
    if let Err(error) = record::finished(app, started, &report).await {
        report
            .faults
            .push(format!("recording the end: {}", chain(&error)));
    }
    report
}

async fn note<T, E>(
    report: &mut SweepReport,
    step: &str,
    work: impl Future<Output = Result<T, E>>,
) -> T
where
    T: Default,
    E: Error + 'static,
{
    match work.await {
        Ok(done) => done,
        Err(error) => {
            tracing::error!(
                step,
                error = &error as &dyn Error,
                "a step of the sweep failed"
            );
            report.faults.push(format!("{step}: {}", chain(&error)));
            T::default()
        }
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

async fn push_deliveries(app: &App) -> Result<u64, DbErr> {
    let (mut pushed, mut after) = (0, None);
    for _ in 0..MAX_PAGES {
        let page = deliver::due(&app.db, app.clock.now(), after, PAGE).await?;
        app.dispatch.deliver(&page.due).await;
        pushed += page.due.len() as u64;
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    Ok(pushed)
}

async fn announce_expiring(app: &App) -> Result<u64, ExpiringError> {
    match app.config.files.expiring_notice {
        Some(notice) => crate::files::announce_expiring(app, notice).await,
        None => Ok(0),
    }
}

async fn end_deliveries(app: &App) -> Result<u64, DbErr> {
    let mut ended = 0;
    for _ in 0..MAX_PAGES {
        match deliver::fail_orphaned(&app.db, &app.clock, PAGE).await? {
            0 => break,
            some => ended += some as u64,
        }
    }
    Ok(ended)
}

async fn delete_events(app: &App) -> Result<u64, DbErr> {
    let retention = app.config.outbox.retention;
    outbox::delete_old(&app.db, &app.clock, retention, PAGE * MAX_PAGES as u64).await
}

async fn forget_keys(app: &App) -> Result<u64, DbErr> {
    let mut forgotten = 0;
    for _ in 0..MAX_PAGES {
        match idempotency::forget(&app.db, &app.clock, PAGE).await? {
            0 => break,
            some => forgotten += some,
        }
    }
    Ok(forgotten)
}
