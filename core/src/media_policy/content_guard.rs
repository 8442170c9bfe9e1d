//! Inspects the first bytes of a body while it is streamed. The stream ends with an error at the first piece that shows
//! a disallowed type; nothing of that piece is passed on.

use super::{HeadExtent, MAX_HEAD_LEN, MediaPolicyError, judge};
use crate::config::UploadsConfig;
use bytes::Bytes;
use futures::Stream;
use std::{
    error::Error,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

/// The declared properties of a file whose bytes are about to be received.
#[derive(Clone, Debug)]
pub struct DeclaredContent {
    pub name: String,
    pub content_type: String,
}

/// Inspects the first bytes of one file.
#[derive(Clone, Debug)]
pub struct ContentGuard(Arc<GuardState>);

#[derive(Debug)]
struct GuardState {
    lists: UploadsConfig,
    declared: DeclaredContent,
    /// The size of the whole file, if known.
    total: Option<u64>,
    /// Whether the file ends with the body.
    ends: bool,
    head: Mutex<Vec<u8>>,
}

impl ContentGuard {
    /// `before` are the bytes of the file received earlier; `ends` means that the body completes the file.
    #[must_use]
    pub fn new(
        lists: &UploadsConfig,
        declared: DeclaredContent,
        total: Option<u64>,
        ends: bool,
        before: Vec<u8>,
    ) -> Self {
        Self(Arc::new(GuardState {
            lists: lists.clone(),
            declared,
            total,
            ends,
            head: Mutex::new(before),
        }))
    }

    /// Returns the body with inspection.
    pub fn watch<E, S>(
        &self,
        body: S,
    ) -> impl Stream<Item = Result<Bytes, Box<dyn Error + Send + Sync>>> + Send + use<E, S>
    where
        E: Into<Box<dyn Error + Send + Sync>>,
        S: Stream<Item = Result<Bytes, E>> + Send,
    {
        GuardedBody {
            body: Box::pin(body),
            guard: self.clone(),
            done: false,
        }
    }

    /// Returns the type of the file, once its first bytes have passed.
    ///
    /// # Errors
    /// [`MediaPolicyError`], the error the body would have ended with.
    pub fn verdict(&self) -> Result<String, MediaPolicyError> {
        self.judge(&self.head(), HeadExtent::All)
    }

    fn head(&self) -> Vec<u8> {
        let head = self.0.head.lock().unwrap_or_else(PoisonError::into_inner);
        head.clone()
    }

    fn judge(&self, head: &[u8], known: HeadExtent) -> Result<String, MediaPolicyError> {
        let DeclaredContent { name, content_type } = &self.0.declared;
        judge(&self.0.lists, name, content_type, head, known)
    }

    /// Inspects a piece, and returns whether it was the last one that matters.
    fn push(&self, piece: &[u8]) -> Result<bool, MediaPolicyError> {
        let mut head = self.0.head.lock().unwrap_or_else(PoisonError::into_inner);
        let most =
            usize::try_from(MAX_HEAD_LEN.min(self.0.total.unwrap_or(MAX_HEAD_LEN))).unwrap_or(0);
        let room = most.saturating_sub(head.len());
        head.extend_from_slice(&piece[..piece.len().min(room)]);
        let is_full = head.len() >= most;
        let known = match is_full {
            true => HeadExtent::All,
            false => HeadExtent::Part,
        };
        self.judge(&head, known).map(|_| is_full)
    }

    /// Called at the end of the body.
    fn end(&self) -> Result<(), MediaPolicyError> {
        // Whether an empty file is allowed is checked elsewhere.
        match self.0.ends && !self.head().is_empty() {
            true => self.verdict().map(drop),
            false => Ok(()),
        }
    }
}

struct GuardedBody<S> {
    body: Pin<Box<S>>,
    guard: ContentGuard,
    done: bool,
}

impl<S, E> Stream for GuardedBody<S>
where
    S: Stream<Item = Result<Bytes, E>>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    type Item = Result<Bytes, Box<dyn Error + Send + Sync>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = std::task::ready!(self.body.as_mut().poll_next(context));
        if self.done {
            return Poll::Ready(next.map(|piece| piece.map_err(Into::into)));
        }
        let judged = match &next {
            Some(Ok(piece)) => self.guard.push(piece),
            Some(Err(_)) => Ok(true),
            None => self.guard.end().map(|()| true),
        };
        match judged {
            Ok(done) => self.done = done,
            Err(refused) => {
                self.done = true;
                return Poll::Ready(Some(Err(refused.into())));
            }
        }
        Poll::Ready(next.map(|piece| piece.map_err(Into::into)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media_policy::tests::lists;
    use futures::{StreamExt, stream};
    use std::convert::Infallible;

    /// Returns the bytes that pass, and whether the rest was rejected.
    async fn passed(declared: &str, ends: bool, pieces: &[&'static [u8]]) -> (Vec<u8>, bool) {
        let lists = lists(|lists| {
            lists.denied_types = vec!["application/x-msdownload".to_owned()];
            lists.allowed_types = vec!["image/*".to_owned(), "text/*".to_owned()];
        });
        let declared = DeclaredContent {
            name: "a".to_owned(),
            content_type: declared.to_owned(),
        };
        let total = ends.then(|| pieces.iter().map(|piece| piece.len() as u64).sum());
        let guard = ContentGuard::new(&lists, declared, total, ends, Vec::new());
        let body = stream::iter(
            pieces
                .iter()
                .map(|piece| Ok::<_, Infallible>(Bytes::from_static(piece))),
        );
        let mut body = std::pin::pin!(guard.watch(body));
        let mut came = Vec::new();
        while let Some(piece) = body.next().await {
            match piece {
                Ok(piece) => came.extend_from_slice(&piece),
                Err(error) => return (came, error.is::<MediaPolicyError>()),
            }
        }
        (came, false)
    }

    #[tokio::test]
    async fn a_body_ends_at_the_piece_that_shows_what_it_is() {
        let program: [&[u8]; 3] = [b"M", b"Z\x90\0\x03\0\0\0\x04\0\0\0\xff\xff", b"more"];
        assert_eq!(
            passed("image/png", false, &program).await,
            (b"M".to_vec(), true)
        );
        assert_eq!(
            passed("text/csv", true, &program).await,
            (b"M".to_vec(), true)
        );
        let csv: [&[u8]; 2] = [b"MZ,", b"RT\n1,2\n"];
        assert_eq!(
            passed("text/csv", true, &csv).await,
            (b"MZ,RT\n1,2\n".to_vec(), false)
        );
        let words: [&[u8]; 2] = [b"no ", b"image"];
        assert_eq!(
            passed("image/png", true, &words).await,
            (b"no ".to_vec(), true)
        );
        let more_to_come = passed("image/png", false, &words).await;
        assert_eq!(more_to_come, (b"no image".to_vec(), false));
    }
}
