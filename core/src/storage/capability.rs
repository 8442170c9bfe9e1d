//! What a store supports, and what its absence means.

use std::{
    fmt,
    sync::atomic::{AtomicU8, Ordering},
};

/// Something that not every store supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// In the words of the S3 API.
    pub name: &'static str,
    pub support: Support,
    /// What happens without it.
    pub without: &'static str,
}

/// What is known about the support of a [`Capability`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// Not needed yet.
    Unknown,
    Yes,
    No,
}

impl fmt::Display for Support {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Yes => "yes",
            Self::No => "no",
        })
    }
}

/// A capability that is used until the store refuses it, which is logged once.
#[derive(Debug)]
pub(crate) struct TrackedCapability {
    name: &'static str,
    without: &'static str,
    support: AtomicU8,
}

impl TrackedCapability {
    pub(crate) fn new(name: &'static str, without: &'static str) -> Self {
        Self {
            name,
            without,
            support: AtomicU8::new(Support::Unknown as u8),
        }
    }

    pub(crate) fn support(&self) -> Support {
        match self.support.load(Ordering::Relaxed) {
            known if known == Support::Yes as u8 => Support::Yes,
            known if known == Support::No as u8 => Support::No,
            _ => Support::Unknown,
        }
    }

    /// Whether it may be used: unless the store has refused it.
    pub(crate) fn is_usable(&self) -> bool {
        self.support() != Support::No
    }

    /// The store has used it.
    pub(crate) fn confirm(&self) {
        self.support.store(Support::Yes as u8, Ordering::Relaxed);
    }

    /// The store has refused it.
    pub(crate) fn refuse(&self) {
        let before = self.support.swap(Support::No as u8, Ordering::Relaxed);
        if before != Support::No as u8 {
            tracing::warn!(
                "the object store does not support {}: {}",
                self.name,
                self.without
            );
        }
    }

    pub(crate) fn snapshot(&self) -> Capability {
        Capability {
            name: self.name,
            support: self.support(),
            without: self.without,
        }
    }
}
