//! The payloads of jobs: ids only, since anything else could be stale when the job runs.

use entity::{DeliveryId, FileId};
use landfall_queue::Job;
use serde::{Deserialize, Serialize};

/// Finalizes a staged file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FinalizeJob {
    pub file_id: FileId,
}

/// Makes one attempt of a delivery.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeliverJob {
    pub delivery_id: DeliveryId,
}

/// Maintains the installation.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MaintenanceJob {
    /// Removes the bytes of a file that failed or was deleted.
    Purge { file_id: FileId },
    /// Runs the sweep that is due at this second since the Unix epoch.
    Sweep { tick: u64 },
    /// Runs the audit that is due at this second since the Unix epoch.
    Audit { tick: u64 },
}

impl Job for FinalizeJob {
    const QUEUE: &'static str = "finalize";
}

impl Job for DeliverJob {
    const QUEUE: &'static str = "deliver";
}

impl Job for MaintenanceJob {
    const QUEUE: &'static str = "maintenance";
}

impl FinalizeJob {
    /// The id by which the queue runs it once at a time.
    #[must_use]
    pub fn id(file: FileId) -> String {
        format!("file:{file}")
    }
}

impl DeliverJob {
    /// The id by which the queue runs it once at a time.
    #[must_use]
    pub fn id(delivery: DeliveryId) -> String {
        format!("delivery:{delivery}")
    }
}

impl MaintenanceJob {
    /// The id of the job; the queue runs each id only once at a time.
    #[must_use]
    pub fn id(&self) -> String {
        match self {
            Self::Purge { file_id } => format!("purge:{file_id}"),
            Self::Sweep { tick } => format!("sweep:{tick}"),
            // One at a time, however long it takes: two would leave no slot for sweeps.
            Self::Audit { .. } => "audit".to_owned(),
        }
    }
}
