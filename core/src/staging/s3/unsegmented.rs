//! Objects staged in the bucket by versions without segments, named `staging/OWNER/OFFSET-UUIDv7`: each starts where
//! the previous one ends. Of two that start at the same offset, the later one counts. They are no longer written.

use super::objects::{Listing, StagedObject, list_after};
use super::{MAX_OBJECT_SIZE, folder};
use crate::{staging::StagingError, storage::s3::S3Storage};
use futures::TryStreamExt;
use std::{ops::Range, sync::Arc};
use uuid::Uuid;

/// Iterates over the objects of a range.
pub(super) struct ObjectChain {
    listing: Listing,
    peeked: Option<StagedObject>,
    position: u64,
    end: u64,
}

impl ObjectChain {
    pub(super) fn new(store: &Arc<S3Storage>, owner: Uuid, range: Range<u64>) -> Self {
        let from = range.start.saturating_sub(MAX_OBJECT_SIZE as u64);
        Self {
            // No object has exactly this name, since a dash and a UUID follow the offset.
            listing: list_after(store, owner, format!("{}{from:020}", folder(owner))),
            peeked: None,
            position: range.start,
            end: range.end,
        }
    }

    async fn take(&mut self) -> Result<Option<StagedObject>, StagingError> {
        if let Some(peeked) = self.peeked.take() {
            return Ok(Some(peeked));
        }
        while let Some((key, object)) = self.listing.try_next().await? {
            if key.writer().is_none() {
                return Ok(Some(object));
            }
        }
        Ok(None)
    }

    /// Returns the object with the next bytes; `None` at a gap and at the end.
    pub(super) async fn next(&mut self) -> Result<Option<StagedObject>, StagingError> {
        let mut best: Option<StagedObject> = None;
        while let Some(object) = self.take().await? {
            let end = object.position + object.size;
            if object.position > self.position {
                self.peeked = Some(object);
                break;
            }
            if end > self.position {
                // The listing is sorted by offset and then by age, so the last one that fits counts.
                best = Some(object);
            }
        }
        if let Some(object) = &best {
            self.position = (object.position + object.size).min(self.end);
        }
        Ok(best)
    }
}
