//! `maintenance`: purges and sweeps.

use crate::jobs::MaintenanceJob;
use apalis::prelude::{BoxDynError, Data};
use landfall_core::{context::Landfall, files, sweep};

#[tracing::instrument(name = "maintenance", skip_all, fields(job = job.id()))]
pub(crate) async fn handle(
    job: MaintenanceJob,
    landfall: Data<Landfall>,
) -> Result<(), BoxDynError> {
    match job {
        MaintenanceJob::Purge { file_id } => {
            files::purge(&landfall, file_id).await?;
        }
        MaintenanceJob::Sweep { tick } => {
            if let Some(report) = sweep::sweep_at(&landfall, tick).await? {
                tracing::info!(?report, "swept");
            }
        }
    }
    Ok(())
}
