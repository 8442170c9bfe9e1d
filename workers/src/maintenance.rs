//! `maintenance`: purges and sweeps.

use crate::jobs::MaintenanceJob;
use apalis_core::{error::BoxDynError, task::data::Data};
use landfall_core::{context::Landfall, files, sweep};

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
