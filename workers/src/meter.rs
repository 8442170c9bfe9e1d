//! What the work of this process is counted as, for `/metrics`. Labels are stages and outcomes, never ids.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};
use std::time::Duration;

/// In seconds: from a small file on a near disk to the largest on a slow line.
const BUCKETS: [f64; 12] = [
    0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0,
];

/// A part of a file's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The bytes of one request, until they are durable in staging.
    Receive,
    /// One run of finalize.
    Finalize,
    /// One attempt of a delivery.
    Deliver,
}

impl Stage {
    fn as_str(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Finalize => "finalize",
            Self::Deliver => "deliver",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StageEnd {
    stage: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    outcome: &'static str,
}

/// Counts for one process; clones count together.
#[derive(Clone, Debug)]
pub struct Meter {
    stages: Family<StageEnd, Histogram>,
    deliveries: Family<Ended, Counter>,
    rescued: Counter,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            stages: Family::new_with_constructor(histogram as fn() -> Histogram),
            deliveries: Family::default(),
            rescued: Counter::default(),
        }
    }
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

impl Meter {
    /// Makes the counts part of what is told.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "stage_duration",
            "How long each stage took, by how it ended",
            Unit::Seconds,
            self.stages.clone(),
        );
        registry.register(
            "deliveries",
            "Attempts of deliveries by outcome: delivered, retried, failed",
            self.deliveries.clone(),
        );
        registry.register(
            "leases_rescued",
            "Files whose worker's lease ran out, pushed again by sweeps of this process",
            self.rescued.clone(),
        );
    }

    /// A stage is over; `outcome` is one of a few words.
    pub fn took(&self, stage: Stage, outcome: &'static str, time: Duration) {
        let stage = stage.as_str();
        self.stages
            .get_or_create(&StageEnd { stage, outcome })
            .observe(time.as_secs_f64());
    }

    /// An attempt of a delivery is over.
    pub(crate) fn delivered(&self, outcome: &'static str, time: Duration) {
        self.deliveries.get_or_create(&Ended { outcome }).inc();
        self.took(Stage::Deliver, outcome, time);
    }

    pub(crate) fn rescued(&self, leases: u64) {
        self.rescued.inc_by(leases);
    }
}
