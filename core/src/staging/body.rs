//! A body as it comes in: taken in pieces or batches of bounded size, cut at its limit.

use super::{Hashes, StagingError, hashes::Hasher};
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use std::error::Error;

/// A body, whatever it comes from.
pub(crate) type BoxBody<'a> = BoxStream<'a, Result<Bytes, Box<dyn Error + Send + Sync>>>;

/// How a body ended.
#[derive(Debug)]
pub(crate) enum BodyEnd {
    Whole,
    /// It broke off, or reached its limit; what came before is good.
    Stopped(StagingError),
}

/// What came in one go.
#[derive(Debug, Default)]
pub(crate) struct BodyBatch {
    pub(crate) pieces: Vec<Bytes>,
    /// In bytes.
    pub(crate) size: usize,
    /// None while there may be more.
    pub(crate) end: Option<BodyEnd>,
}

/// A body and how much of it may still come.
pub(crate) struct BodyReader<'a> {
    body: BoxBody<'a>,
    limit: u64,
    room: u64,
    /// What of the last piece did not fit its batch.
    rest: Option<Bytes>,
    /// It reached its limit with the last piece.
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

    /// The next piece, of at most `size` bytes and never empty, or the body's end. May be cancelled without loss.
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

    /// Takes exactly `size` bytes, or fewer with the body's end. Cancelling it loses what it has taken.
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

/// Hashes a body without keeping it: for bytes that are staged already and have come again.
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
