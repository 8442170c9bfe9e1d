//! What this store supports: found out by the startup check, and by every request that a store refuses later.

use super::{AddressedClients, addressing::AddressingStyle};
use crate::storage::{
    StorageError,
    capability::{Capability, Support, TrackedCapability},
};
use std::sync::atomic::{AtomicBool, Ordering};

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct Capabilities {
    /// `If-None-Match: *`, see [`super::conditional_put`].
    pub(super) conditional_writes: TrackedCapability,
    /// `x-amz-checksum-sha256`.
    pub(super) checksums: TrackedCapability,
    pub(crate) part_copy: TrackedCapability,
    pub(super) multipart_listing: TrackedCapability,
    /// Whether listing multipart uploads was refused by a policy, which may be changed.
    pub(super) listing_forbidden: AtomicBool,
    /// Whether each part must come with its MD5, as buckets with Object Lock demand.
    part_checksums_required: AtomicBool,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            conditional_writes: TrackedCapability::new(
                "conditional writes (If-None-Match)",
                "only the database keeps two writers of one key apart",
            ),
            checksums: TrackedCapability::new(
                "SHA-256 checksums (x-amz-checksum-sha256)",
                "Content-MD5 is sent instead",
            ),
            part_copy: TrackedCapability::new(
                "copies of parts (UploadPartCopy)",
                "large files staged in the bucket are downloaded and sent again",
            ),
            multipart_listing: TrackedCapability::new(
                "lists of multipart uploads (ListMultipartUploads)",
                "the sweep and the audit cannot find abandoned ones; allow s3:ListBucketMultipartUploads, or set a \
                 lifecycle rule of the bucket that aborts them",
            ),
            listing_forbidden: AtomicBool::new(false),
            part_checksums_required: AtomicBool::new(false),
        }
    }
}

impl Capabilities {
    /// Whether each part needs its MD5.
    pub(crate) fn requires_part_checksums(&self) -> bool {
        self.part_checksums_required.load(Ordering::Relaxed)
    }

    /// Whether a part was refused because it came without its MD5. From then on each comes with it.
    pub(crate) fn wants_part_checksum(&self, error: &StorageError) -> bool {
        let StorageError::Refused {
            status: 400,
            code,
            message,
            ..
        } = error
        else {
            return false;
        };
        let text = format!("{code} {message}").to_ascii_lowercase();
        let is_wanted = text.contains("md5") || text.contains("checksum");
        if is_wanted && !self.part_checksums_required.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "the object store requires a checksum with each part: Content-MD5 is sent"
            );
        }
        is_wanted
    }

    /// Records a refused copy of a part. Returns true if the bytes must be read and sent instead.
    pub(crate) fn learn_from_refused_copy(&self, error: &StorageError) -> bool {
        match error {
            StorageError::Refused { status, code, .. }
                if matches!(status, 405 | 501) || code == "NotImplemented" =>
            {
                self.part_copy.refuse();
                true
            }
            // A policy that allows no copies, or a request that this store does not understand.
            StorageError::Refused {
                status: 400 | 403, ..
            } => true,
            _ => false,
        }
    }

    /// Everything that is known, for people.
    pub(super) fn list(&self, clients: &AddressedClients) -> Vec<Capability> {
        let style = clients.style();
        let support = |used, other| match style {
            Some(style) if style == used => Support::Yes,
            Some(style) if style == other => Support::No,
            _ => Support::Unknown,
        };
        let path_style = Capability {
            name: "the bucket in the path of URLs",
            support: support(AddressingStyle::Path, AddressingStyle::Host),
            without: "it is named in the host (virtual-host style)",
        };
        let optional_part_checksums = Capability {
            name: "parts without a checksum",
            support: match self.requires_part_checksums() {
                true => Support::No,
                false => Support::Yes,
            },
            without: "Content-MD5 is sent with each part",
        };
        let tracked = [
            &self.conditional_writes,
            &self.checksums,
            &self.part_copy,
            &self.multipart_listing,
        ];
        tracked
            .map(TrackedCapability::snapshot)
            .into_iter()
            .chain([path_style, optional_part_checksums])
            .collect()
    }
}
