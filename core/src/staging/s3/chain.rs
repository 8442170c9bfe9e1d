//! The segments of one key, followed from each to the one that begins where it ends.

use super::{SEGMENT, folder, parsed};
use crate::{
    staging::{StagingError, StagingKey, StagingStream},
    storage::s3::S3Storage,
};
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use std::{ops::Range, sync::Arc};

/// One object of staging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) name: String,
    /// Of its first byte, in bytes.
    pub(crate) offset: u64,
    /// In bytes.
    pub(crate) size: u64,
    /// As the store says it in lists.
    pub(crate) etag: Option<String>,
}

type Segments = BoxStream<'static, Result<Segment, StagingError>>;

/// All segments of a key that begin at `from` or later, in the order of their offsets and ages.
pub(super) fn segments(store: &Arc<S3Storage>, key: StagingKey, from: u64) -> Segments {
    let folder = folder(key);
    // Nothing has this name itself: in names a dash and a UUID follow the offset.
    let after = format!("{folder}{from:020}");
    store
        .list_after(folder, Some(after))
        .map_err(StagingError::from)
        .map_ok(|page| {
            stream::iter(page.into_iter().filter_map(|object| {
                let (_, offset) = parsed(&object.key)?;
                Some(Ok(Segment {
                    name: object.key,
                    offset,
                    size: object.size,
                    etag: object.etag,
                }))
            }))
        })
        .try_flatten()
        .boxed()
}

/// Deletes what reaches beyond `offset`: an append that was interrupted before its row has left it.
///
/// Every append ends a segment, so one of them ends at the offset; and none is longer than [`SEGMENT`], so it begins
/// no further before.
pub(super) async fn cut(
    store: &Arc<S3Storage>,
    key: StagingKey,
    offset: u64,
) -> Result<(), StagingError> {
    let mut segments = segments(store, key, offset.saturating_sub(SEGMENT));
    let (mut found, mut length) = (false, None);
    let mut beyond = Vec::new();
    while let Some(segment) = segments.try_next().await? {
        let end = segment.offset + segment.size;
        found |= end == offset;
        if end > offset {
            beyond.push(segment.name);
        } else {
            length = length.max(Some(end));
        }
    }
    match length {
        _ if found || offset == 0 => {}
        None if super::S3Staging::is_gone(store, key).await? => return Err(StagingError::Gone),
        length => {
            let length = length.unwrap_or(0);
            return Err(StagingError::WrongOffset { offset, length });
        }
    }
    for name in beyond {
        store.delete_key(&name).await?;
    }
    Ok(())
}

/// A walk along the segments of a range.
pub(crate) struct Chain {
    store: Arc<S3Storage>,
    segments: Segments,
    peeked: Option<Segment>,
    position: u64,
    end: u64,
}

impl Chain {
    pub(crate) fn of(store: &Arc<S3Storage>, key: StagingKey, range: Range<u64>) -> Self {
        Self {
            store: Arc::clone(store),
            segments: segments(store, key, range.start.saturating_sub(SEGMENT)),
            peeked: None,
            position: range.start,
            end: range.end,
        }
    }

    async fn take(&mut self) -> Result<Option<Segment>, StagingError> {
        match self.peeked.take() {
            Some(peeked) => Ok(Some(peeked)),
            None => self.segments.try_next().await,
        }
    }

    /// The segment with the next bytes, of which `position` is the first wanted.
    ///
    /// # Errors
    /// [`StagingError::Gone`] at a hole, or when it ends before the range.
    pub(crate) async fn next(&mut self) -> Result<Option<(Segment, Range<u64>)>, StagingError> {
        if self.position >= self.end {
            return Ok(None);
        }
        let mut best: Option<Segment> = None;
        while let Some(segment) = self.take().await? {
            let covers =
                segment.offset <= self.position && segment.offset + segment.size > self.position;
            if covers {
                // The list goes by offset and then by age, so the last that fits is the one that counts.
                best = Some(segment);
            } else if segment.offset > self.position {
                self.peeked = Some(segment);
                break;
            }
        }
        let segment = best.ok_or(StagingError::Gone)?;
        let start = self.position - segment.offset;
        let end = segment.size.min(self.end - segment.offset);
        self.position = segment.offset + end;
        Ok(Some((segment, start..end)))
    }

    /// The bytes of the range. The first segment is found before the stream begins.
    pub(crate) async fn bytes(mut self) -> Result<StagingStream, StagingError> {
        let first = self.next().await?;
        let store = Arc::clone(&self.store);
        let segments = stream::try_unfold((first, self), |(next, mut chain)| async move {
            let Some(found) = next else {
                return Ok(None);
            };
            let following = chain.next().await?;
            Ok(Some((found, (following, chain))))
        });
        // The next segment is asked for while one is read.
        let bytes = segments
            .map_ok(move |(segment, range): (Segment, Range<u64>)| {
                let store = Arc::clone(&store);
                async move {
                    let bytes = store.read_key(&segment.name, Some(range)).await?;
                    Ok::<_, StagingError>(bytes.map_err(StagingError::from))
                }
            })
            .try_buffered(2)
            .try_flatten();
        Ok(bytes.boxed())
    }
}
