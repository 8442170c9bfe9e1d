//! The objects of pieces, in byte order.
//!
//! The objects of a segment have a single writer and one name per position, so a listing returns all of them. Objects
//! beyond the counted length belong to a writer that was late, and are skipped. The segments of an upload are adjacent
//! in a listing, which is read once for all of them.

use super::{MAX_OBJECT_SIZE, folder, parsed, prefix, unsegmented::ObjectChain};
use crate::{
    staging::{Piece, StagingError, StagingKey, StagingStream},
    storage::s3::S3Storage,
};
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use std::{ops::Range, sync::Arc};
use uuid::Uuid;

/// An object of staging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StagedObject {
    pub(crate) name: String,
    /// Position of its first byte within the segment, in bytes.
    pub(crate) position: u64,
    /// In bytes.
    pub(crate) size: u64,
    /// As the store reports it in listings.
    pub(crate) etag: Option<String>,
}

pub(super) type Listing = BoxStream<'static, Result<(StagingKey, StagedObject), StagingError>>;

/// Lists an owner's objects after a name, in the order of their names.
pub(super) fn list_after(store: &Arc<S3Storage>, owner: Uuid, after: String) -> Listing {
    store
        .list_after(folder(owner), Some(after))
        .map_err(StagingError::from)
        .map_ok(|page| {
            stream::iter(page.into_iter().filter_map(|object| {
                let (key, position) = parsed(&object.key)?;
                let object = StagedObject {
                    name: object.key,
                    position,
                    size: object.size,
                    etag: object.etag,
                };
                Some(Ok((key, object)))
            }))
        })
        .try_flatten()
        .boxed()
}

/// A listing of an owner's objects, and the first object that was not needed yet.
struct OpenListing {
    owner: Uuid,
    listing: Listing,
    peeked: Option<(StagingKey, StagedObject)>,
}

/// The current piece, and the next position in it.
struct CurrentPiece {
    piece: Piece,
    position: u64,
}

/// Iterates over the objects of pieces.
pub(crate) struct PieceObjects {
    store: Arc<S3Storage>,
    pieces: std::vec::IntoIter<Piece>,
    current: Option<CurrentPiece>,
    open: Option<OpenListing>,
    /// For the current piece, if an earlier version staged it.
    chain: Option<ObjectChain>,
}

impl PieceObjects {
    pub(crate) fn new(store: &Arc<S3Storage>, pieces: &[Piece]) -> Self {
        Self {
            store: Arc::clone(store),
            pieces: Vec::from(pieces).into_iter(),
            current: None,
            open: None,
            chain: None,
        }
    }

    /// Returns the object with the next bytes, and the range of its bytes to use.
    ///
    /// # Errors
    /// [`StagingError::Gone`] when a piece has no objects, [`StagingError::WrongLength`] when one is missing.
    pub(crate) async fn next(
        &mut self,
    ) -> Result<Option<(StagedObject, Range<u64>)>, StagingError> {
        let (piece, position) = loop {
            match &self.current {
                Some(current) if current.position < current.piece.range().end => {
                    break (current.piece, current.position);
                }
                _ => match self.pieces.next() {
                    Some(piece) => self.begin(piece),
                    None => return Ok(None),
                },
            }
        };
        let end = piece.range().end;
        let found = match &mut self.chain {
            Some(chain) => chain.next().await?,
            None => self.find(piece.key, position).await?,
        };
        let Some(object) = found else {
            return Err(match position == piece.offset {
                true => StagingError::Gone,
                false => StagingError::WrongLength {
                    expected: piece.size,
                    found: position - piece.offset,
                },
            });
        };
        let range = position - object.position..object.size.min(end - object.position);
        if let Some(current) = &mut self.current {
            current.position = object.position + range.end;
        }
        Ok(Some((object, range)))
    }

    fn begin(&mut self, piece: Piece) {
        self.chain = match piece.key.writer() {
            None if piece.size > 0 => Some(ObjectChain::new(
                &self.store,
                piece.key.owner(),
                piece.range(),
            )),
            _ => None,
        };
        self.current = Some(CurrentPiece {
            piece,
            position: piece.offset,
        });
    }

    /// Finds the object of a segment that contains the byte at `position`.
    async fn find(
        &mut self,
        key: StagingKey,
        position: u64,
    ) -> Result<Option<StagedObject>, StagingError> {
        let prefix = prefix(key);
        let is_ahead = |open: &OpenListing| match &open.peeked {
            Some((_, object)) => object.name < prefix || object.name.starts_with(&prefix),
            None => true,
        };
        let mut open = match self.open.take() {
            Some(open) if open.owner == key.owner() && is_ahead(&open) => open,
            _ => OpenListing {
                owner: key.owner(),
                // An object that contains the position cannot start further before it.
                listing: list_after(
                    &self.store,
                    key.owner(),
                    match position.checked_sub(MAX_OBJECT_SIZE as u64 + 1) {
                        Some(before) => format!("{prefix}{before:020}"),
                        None => prefix.clone(),
                    },
                ),
                peeked: None,
            },
        };
        let mut found = None;
        loop {
            let next = match open.peeked.take() {
                Some(next) => Some(next),
                None => open.listing.try_next().await?,
            };
            let Some((listed, object)) = next else { break };
            if listed == key && object.position <= position {
                if object.position + object.size > position {
                    found = Some(object);
                    break;
                }
            } else if object.name > prefix {
                // It belongs to a later position, or to a later segment.
                open.peeked = Some((listed, object));
                break;
            }
        }
        self.open = Some(open);
        Ok(found)
    }

    /// Iterates to the end, to find out whether all objects exist.
    pub(crate) async fn require_all(mut self) -> Result<(), StagingError> {
        while self.next().await?.is_some() {}
        Ok(())
    }

    /// Streams the bytes of all pieces. The first object is looked up before the stream starts.
    pub(crate) async fn bytes(mut self) -> Result<StagingStream, StagingError> {
        let first = self.next().await?;
        let store = Arc::clone(&self.store);
        let objects = stream::try_unfold((first, self), |(next, mut objects)| async move {
            let Some(found) = next else {
                return Ok(None);
            };
            let following = objects.next().await?;
            Ok(Some((found, (following, objects))))
        });
        // The next object is requested while the current one is read.
        let bytes = objects
            .map_ok(move |(object, range): (StagedObject, Range<u64>)| {
                let store = Arc::clone(&store);
                async move {
                    let bytes = store.read_key(&object.name, Some(range)).await?;
                    Ok::<_, StagingError>(bytes.map_err(StagingError::from))
                }
            })
            .try_buffered(2)
            .try_flatten();
        Ok(bytes.boxed())
    }
}
