//! The result of an audit.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// Maximum number of violations listed individually. Beyond it they are only counted, so memory stays bounded.
const MAX_LISTED: usize = 10_000;

/// The invariant that a violation breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Invariant {
    /// The object of a stored file exists, with the size and SHA-256 in the row.
    I1,
    /// Stored files and `file.stored` events correspond one to one.
    I2,
    /// No object without a row, no staged bytes without a live upload, no multipart upload left open.
    I5,
    /// Nothing that is due has waited longer than two sweep periods.
    I7,
}

impl Invariant {
    /// All checked invariants.
    pub const ALL: [Self; 4] = [Self::I1, Self::I2, Self::I5, Self::I7];

    /// The name of the invariant.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::I1 => "I1",
            Self::I2 => "I2",
            Self::I5 => "I5",
            Self::I7 => "I7",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A violated invariant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    pub invariant: Invariant,
    /// The id of the file, event, delivery or upload, or the key of the object.
    pub id: String,
    /// A description of what is wrong, for operators.
    pub detail: String,
}

impl Violation {
    pub(super) fn new(
        invariant: Invariant,
        id: impl fmt::Display,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            invariant,
            id: id.to_string(),
            detail: detail.into(),
        }
    }
}

/// The outcome of repairing a violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepairOutcome {
    /// Repairs were not requested.
    NotRequested,
    /// Repaired; how.
    Done(&'static str),
    /// Not repaired; why.
    NotRepaired(String),
}

/// The violations one audit found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditReport {
    /// Number of files, events, objects and due rows checked.
    pub checked: u64,
    /// Number of violations found, by invariant.
    pub found: BTreeMap<Invariant, u64>,
    /// Number of violations not repaired, by invariant.
    pub left: BTreeMap<Invariant, u64>,
    /// The first unrepaired violations, at most 10,000.
    pub offenders: Vec<Violation>,
}

impl AuditReport {
    /// Whether there are no violations, or all of them were repaired.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.left.is_empty()
    }

    /// Number of unrepaired violations that are not listed.
    #[must_use]
    pub fn unlisted(&self) -> u64 {
        let listed = u64::try_from(self.offenders.len()).unwrap_or(u64::MAX);
        self.left.values().sum::<u64>().saturating_sub(listed)
    }

    /// Counts violations that are neither listed nor repaired.
    pub(super) fn count_unlisted(&mut self, invariant: Invariant, count: u64) {
        if count > 0 {
            *self.found.entry(invariant).or_default() += count;
            *self.left.entry(invariant).or_default() += count;
        }
    }

    pub(super) fn add(&mut self, mut violation: Violation, repair: &RepairOutcome) {
        *self.found.entry(violation.invariant).or_default() += 1;
        match repair {
            RepairOutcome::Done(_) => return,
            RepairOutcome::NotRepaired(why) => {
                violation.detail.push_str("; not repaired: ");
                violation.detail.push_str(why);
            }
            RepairOutcome::NotRequested => {}
        }
        *self.left.entry(violation.invariant).or_default() += 1;
        if self.offenders.len() < MAX_LISTED {
            self.offenders.push(violation);
        }
    }
}
