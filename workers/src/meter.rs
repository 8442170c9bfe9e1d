//! Metrics of this process's work, for `/metrics`. Labels are stages and outcomes, never ids.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};
use std::time::Duration;

/// In seconds: from a small file on a fast disk to the largest on a slow connection.
const BUCKETS: [f64; 12] = [
    0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0, 3600.0,
];

/// A stage in the processing of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Receiving the bytes of one request, until they are durable in staging.
    Receive,
    /// One finalize run.
    Finalize,
    /// One delivery attempt.
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
struct StageLabels {
    stage: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// The metrics of one process; clones share them.
#[derive(Clone, Debug)]
pub struct Meter {
    stages: Family<StageLabels, Histogram>,
    deliveries: Family<OutcomeLabels, Counter>,
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
    /// Registers the metrics.
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

    /// Records the end of a stage; `outcome` is one of a few words.
    pub fn took(&self, stage: Stage, outcome: &'static str, time: Duration) {
        let stage = stage.as_str();
        self.stages
            .get_or_create(&StageLabels { stage, outcome })
            .observe(time.as_secs_f64());
    }

    /// Records the end of a delivery attempt.
    pub(crate) fn delivered(&self, outcome: &'static str, time: Duration) {
        self.deliveries
            .get_or_create(&OutcomeLabels { outcome })
            .inc();
        self.took(Stage::Deliver, outcome, time);
    }

    pub(crate) fn rescued(&self, leases: u64) {
        self.rescued.inc_by(leases);
    }
}
