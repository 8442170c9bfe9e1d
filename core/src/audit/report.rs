//! What an audit found.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// Offenders listed one by one; beyond it they are counted, so that memory stays bounded whatever is wrong.
const MAX_LISTED: usize = 10_000;

/// What an offender offends against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Invariant {
    /// A stored file's object is there, of the size and SHA-256 in the row.
    I1,
    /// Stored files and `file.stored` events are one to one.
    I2,
    /// No object without a row, no staging without a live upload, no multipart upload left open.
    I5,
    /// Nothing that is due has waited longer than two sweep periods.
    I7,
}

impl Invariant {
    /// All that are checked.
    pub const ALL: [Self; 4] = [Self::I1, Self::I2, Self::I5, Self::I7];

    /// As it is written.
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

/// One thing that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    pub invariant: Invariant,
    /// Of the file, event, delivery or upload; of an object its key.
    pub id: String,
    /// What is wrong, for people.
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

/// What came of an offender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepairOutcome {
    /// Nobody asked.
    NotRequested,
    /// Mended, in this way.
    Done(&'static str),
    /// It cannot be mended, or not now; why.
    NotRepaired(String),
}

/// What one audit found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditReport {
    /// Files, events, objects and due rows looked at.
    pub checked: u64,
    /// Of each invariant, all that was found.
    pub found: BTreeMap<Invariant, u64>,
    /// Of each invariant, what is still so: not repaired.
    pub left: BTreeMap<Invariant, u64>,
    /// The first of those left, at most 10,000.
    pub offenders: Vec<Violation>,
}

impl AuditReport {
    /// True when nothing offends, or everything that did was repaired.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.left.is_empty()
    }

    /// How many are left and not listed.
    #[must_use]
    pub fn unlisted(&self) -> u64 {
        let listed = u64::try_from(self.offenders.len()).unwrap_or(u64::MAX);
        self.left.values().sum::<u64>().saturating_sub(listed)
    }

    /// Counts what is neither listed nor repaired.
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
