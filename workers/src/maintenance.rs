//! `maintenance`: purges, sweeps and audits.

use crate::{jobs::MaintenanceJob, meter::Meter};
use apalis::prelude::{BoxDynError, Data};
use landfall_core::{app::App, audit, files, sweep};

#[tracing::instrument(name = "maintenance", skip_all, fields(job = job.id()))]
pub(crate) async fn handle(
    job: MaintenanceJob,
    app: Data<App>,
    meter: Data<Meter>,
) -> Result<(), BoxDynError> {
    match job {
        MaintenanceJob::Purge { file_id } => {
            files::purge(&app, file_id).await?;
        }
        MaintenanceJob::Sweep { tick } => {
            if let Some(report) = sweep::sweep_at(&app, tick).await? {
                meter.rescued(report.leases_rescued);
                tracing::info!(?report, "swept");
            }
        }
        MaintenanceJob::Audit { tick } => {
            if let Some(report) = audit::audit_at(&app, tick).await? {
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
        tracing::warn!(checked, left = ?report.left, "audited: run `landfall audit` to list the violations");
    }
}
