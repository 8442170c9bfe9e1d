//! `maintenance`: purges, sweeps and audits.

use crate::{jobs::MaintenanceJob, meter::Meter};
use apalis::prelude::{BoxDynError, Data};
use landfall_core::{app::App, audit, files, sweep};
use landfall_queue::RetryAfter;
use std::time::Duration;

/// Retry delay while the database does not respond.
const OUTAGE_RETRY_DELAY: Duration = Duration::from_secs(2);

#[tracing::instrument(name = "maintenance", skip_all, fields(job = job.id()))]
pub(crate) async fn handle(
    job: MaintenanceJob,
    app: Data<App>,
    meter: Data<Meter>,
) -> Result<(), BoxDynError> {
    match run(job, &app, &meter).await {
        // The log has a line about the outage itself.
        Err(error) if app.db.is_unreachable() => {
            Err(RetryAfter::not_yet(OUTAGE_RETRY_DELAY, error.to_string()).into())
        }
        outcome => outcome,
    }
}

async fn run(job: MaintenanceJob, app: &App, meter: &Meter) -> Result<(), BoxDynError> {
    match job {
        MaintenanceJob::Purge { file_id } => {
            files::purge(app, file_id).await?;
        }
        MaintenanceJob::Sweep { tick } => {
            if let Some(report) = sweep::sweep_at(app, tick).await? {
                meter.rescued(report.leases_rescued);
                tracing::info!("swept: {}", report.log_summary());
            }
        }
        MaintenanceJob::Audit { tick } => {
            if let Some(report) = audit::audit_at(app, tick).await? {
                log_summary(&report);
            }
        }
    }
    Ok(())
}

/// `landfall audit` lists the violations; their ids may be long, and their keys contain names.
fn log_summary(report: &audit::AuditReport) {
    let checked = report.checked;
    if report.is_clean() {
        tracing::info!(checked, "audited: no violations");
    } else {
        let left: Vec<String> = report
            .left
            .iter()
            .map(|(invariant, count)| format!("{invariant}: {count}"))
            .collect();
        let left = left.join(", ");
        tracing::warn!(
            checked,
            left,
            "audited: run `landfall audit` to list the violations"
        );
    }
}
