//! Reads a request body in pieces or batches of bounded size, up to its limit.

use super::{Hashes, StagingError, hashes::Hasher};
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use std::error::Error;

/// A body from any source.
pub(crate) type BoxBody<'a> = BoxStream<'a, Result<Bytes, Box<dyn Error + Send + Sync>>>;

/// How a body ended.
#[derive(Debug)]
pub(crate) enum BodyEnd {
    Whole,
    /// It was interrupted or reached its limit; the bytes before are valid.
    Stopped(StagingError),
}

/// A batch of pieces.
#[derive(Debug, Default)]
pub(crate) struct BodyBatch {
    pub(crate) pieces: Vec<Bytes>,
    /// In bytes.
    pub(crate) size: usize,
    /// `None` while more may follow.
    pub(crate) end: Option<BodyEnd>,
}

/// Reads a body within a limit.
pub(crate) struct BodyReader<'a> {
    body: BoxBody<'a>,
    limit: u64,
    room: u64,
    /// The rest of the last piece, which did not fit into its batch.
    rest: Option<Bytes>,
    /// The last piece reached the limit.
    is_over: bool,
}

impl<'a> BodyReader<'a> {
    pub(crate) fn new(body: BoxBody<'a>, limit: u64) -> Self {
        Self {
            body,
            limit,
            room: limit,
            rest: None,
            is_over: false,
        }
    }

    /// Returns the next piece, of 1 to `size` bytes, or the end of the body. Cancel safe.
    pub(crate) async fn piece(&mut self, size: usize) -> Result<Bytes, BodyEnd> {
        loop {
            if self.is_over {
                let limit = self.limit;
                return Err(BodyEnd::Stopped(StagingError::TooLarge { limit }));
            }
            let next = match self.rest.take() {
                Some(rest) => Some(Ok(rest)),
                None => self.body.next().await,
            };
            let mut piece = match next {
                None => return Err(BodyEnd::Whole),
                Some(Err(error)) => return Err(BodyEnd::Stopped(StagingError::Body(error))),
                Some(Ok(piece)) => piece,
            };
            if piece.len() > size {
                self.rest = Some(piece.split_off(size));
            }
            let allowed = usize::try_from(self.room).unwrap_or(usize::MAX);
            self.is_over = piece.len() > allowed;
            piece.truncate(allowed);
            self.room -= piece.len() as u64;
            if !piece.is_empty() {
                return Ok(piece);
            }
        }
    }

    /// Reads exactly `size` bytes, or fewer at the end of the body. Not cancel safe: bytes already read are lost.
    pub(crate) async fn batch(&mut self, size: usize) -> BodyBatch {
        let mut batch = BodyBatch::default();
        while batch.size < size {
            match self.piece(size - batch.size).await {
                Ok(piece) => {
                    batch.size += piece.len();
                    batch.pieces.push(piece);
                }
                Err(end) => {
                    batch.end = Some(end);
                    break;
                }
            }
        }
        batch
    }
}

/// Hashes a body without storing it: for bytes that were staged before and are sent again.
pub(crate) async fn digest(
    body: BoxBody<'_>,
    limit: u64,
    mut hasher: Hasher,
) -> Result<(u64, Hashes), StagingError> {
    const BATCH: usize = 512 * 1024;
    let mut intake = BodyReader::new(body, limit);
    let mut size = 0;
    loop {
        let batch = intake.batch(BATCH).await;
        size += batch.size as u64;
        let end = batch.end;
        hasher = tokio::task::spawn_blocking(move || {
            for piece in &batch.pieces {
                hasher.update(piece);
            }
            hasher
        })
        .await
        .map_err(|lost| StagingError::io("hash")(std::io::Error::other(lost)))?;
        match end {
            None => {}
            Some(BodyEnd::Whole) => return Ok((size, hasher.finish())),
            Some(BodyEnd::Stopped(error)) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    fn body(pieces: &[&'static str]) -> BoxBody<'static> {
        stream::iter(pieces.to_vec())
            .map(|piece| Ok(Bytes::from_static(piece.as_bytes())))
            .boxed()
    }

    #[tokio::test]
    async fn batches_have_their_size_and_the_last_the_rest() {
        let mut intake = BodyReader::new(body(&["abc", "defgh", "", "i"]), 100);
        let mut sizes = Vec::new();
        loop {
            let batch = intake.batch(4).await;
            sizes.push(batch.size);
            if batch.end.is_some() {
                break;
            }
        }
        assert_eq!(sizes, [4, 4, 1]);
    }

    #[tokio::test]
    async fn the_limit_itself_passes_and_one_more_is_cut() {
        for (limit, whole) in [(9, true), (8, false)] {
            let mut intake = BodyReader::new(body(&["abcdefghi"]), limit);
            let batch = intake.batch(100).await;
            assert_eq!(batch.size as u64, limit.min(9));
            assert_eq!(matches!(batch.end, Some(BodyEnd::Whole)), whole);
        }
    }
}
