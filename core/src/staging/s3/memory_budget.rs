//! The memory budget of bodies that are being written to the bucket, for the whole process.
//!
//! A body is buffered into an object of up to 8 MiB while the previous object is being put. Memory is granted in steps
//! as bytes arrive. When none is left, every body puts what it has as a smaller object and releases its memory, so that
//! clients that send slowly, or not at all, never block others for long. In addition, each connection has its own read
//! buffer, and one piece of it that waits for memory.

use super::MAX_OBJECT_SIZE;
use crate::staging::body::{BodyEnd, BodyReader};
use bytes::{Bytes, BytesMut};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// The total for all bodies, in bytes.
const TOTAL: usize = 128 * 1024 * 1024;
/// The initial grant, and the unit of later grants, in bytes.
const GRANT_SIZE: usize = 64 * 1024;
/// How often a body that receives nothing checks whether others wait for its memory.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Grants memory to bodies, first come, first served.
#[derive(Debug)]
pub(super) struct BodyMemory {
    steps: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Default for BodyMemory {
    fn default() -> Self {
        Self {
            steps: Arc::new(Semaphore::new(TOTAL / GRANT_SIZE)),
            waiting: AtomicUsize::new(0),
        }
    }
}

/// Buffered bytes of a body that will become one object.
#[derive(Debug)]
pub(super) struct BufferedBytes {
    pub(super) bytes: Bytes,
    /// `None` while more may follow.
    pub(super) end: Option<BodyEnd>,
    /// Released once the bytes are put.
    pub(super) memory: Option<OwnedSemaphorePermit>,
}

impl BodyMemory {
    /// Buffers a body until there is enough for an object, the body ends, or others need the memory. Not cancel safe:
    /// buffered bytes are lost.
    pub(super) async fn buffer(&self, intake: &mut BodyReader<'_>) -> BufferedBytes {
        let first = match intake.piece(GRANT_SIZE).await {
            Ok(first) => first,
            Err(end) => {
                return BufferedBytes {
                    bytes: Bytes::new(),
                    end: Some(end),
                    memory: None,
                };
            }
        };
        let mut memory = self.acquire(1).await;
        // Copied, because a small piece may keep the whole read buffer of its connection alive.
        let mut bytes = BytesMut::with_capacity(GRANT_SIZE);
        bytes.extend_from_slice(&first);
        drop(first);
        let (mut room, mut end) = (GRANT_SIZE, None);
        while bytes.len() < MAX_OBJECT_SIZE {
            if bytes.len() == room {
                let more = room.min(MAX_OBJECT_SIZE - room);
                let Some(granted) = self.try_acquire(more / GRANT_SIZE) else {
                    break;
                };
                match &mut memory {
                    Some(memory) => memory.merge(granted),
                    None => memory = Some(granted),
                }
                room += more;
                bytes.reserve(more);
            }
            match timeout(POLL_INTERVAL, intake.piece(room - bytes.len())).await {
                Ok(Ok(piece)) => bytes.extend_from_slice(&piece),
                Ok(Err(over)) => {
                    end = Some(over);
                    break;
                }
                Err(_) if self.waiting.load(Ordering::Relaxed) > 0 => break,
                Err(_) => {}
            }
        }
        BufferedBytes {
            bytes: bytes.freeze(),
            end,
            memory,
        }
    }

    async fn acquire(&self, steps: u32) -> Option<OwnedSemaphorePermit> {
        let _waiting = WaitGuard::new(&self.waiting);
        // Fails only if the semaphore is closed, which never happens.
        Arc::clone(&self.steps).acquire_many_owned(steps).await.ok()
    }

    fn try_acquire(&self, steps: usize) -> Option<OwnedSemaphorePermit> {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            return None;
        }
        let steps = u32::try_from(steps).ok()?;
        Arc::clone(&self.steps).try_acquire_many_owned(steps).ok()
    }

    /// Number of bytes granted.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        TOTAL - self.steps.available_permits() * GRANT_SIZE
    }
}

/// Counts a waiting body.
struct WaitGuard<'a>(&'a AtomicUsize);

impl<'a> WaitGuard<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::staging::StagingError;
    use futures::{FutureExt, StreamExt, stream};
    use std::{
        convert::Infallible,
        sync::{Mutex, atomic::AtomicU64},
    };

    const BODY: usize = 1024 * 1024;
    const CLIENTS: usize = 400;

    /// A client that sends a megabyte and then keeps the connection open without sending anything.
    fn stalled(sent: &Arc<AtomicU64>) -> BodyReader<'static> {
        const PIECE: usize = 16 * 1024;
        let sent = Arc::clone(sent);
        let pieces = stream::iter(0..BODY / PIECE).map(move |_| {
            sent.fetch_add(PIECE as u64, Ordering::Relaxed);
            Ok::<_, Infallible>(Bytes::from_static(&[7; PIECE]))
        });
        let body = pieces.chain(stream::pending()).map(|piece| Ok(piece?));
        BodyReader::new(body.boxed(), u64::MAX)
    }

    #[tokio::test]
    async fn stalled_clients_hold_no_more_than_all_there_is_and_keep_nobody_waiting() {
        let memory = Arc::new(BodyMemory::default());
        let (sent, put) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let most = Arc::new(Mutex::new(0));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let mut intake = stalled(&sent);
                let (memory, put, most) =
                    (Arc::clone(&memory), Arc::clone(&put), Arc::clone(&most));
                tokio::spawn(async move {
                    loop {
                        let gathered = memory.buffer(&mut intake).await;
                        let held = memory.held();
                        let mut most = most.lock().unwrap();
                        *most = held.max(*most);
                        put.fetch_add(gathered.bytes.len() as u64, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let all = (CLIENTS * BODY) as u64;
        let taken = async {
            while sent.load(Ordering::Relaxed) < all {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(60), taken).await.unwrap();
        assert!(put.load(Ordering::Relaxed) >= all - TOTAL as u64);
        let most = *most.lock().unwrap();
        assert!(most > TOTAL / 2 && most <= TOTAL, "{most} bytes were held");
        for client in clients {
            client.abort();
        }
    }

    #[tokio::test]
    async fn objects_are_whole_while_there_is_memory_and_smaller_when_there_is_none() {
        let memory = BodyMemory::default();
        let endless = || {
            let pieces = stream::repeat_with(|| Ok(Bytes::from_static(&[1; 100_000])));
            BodyReader::new(pieces.boxed(), u64::MAX)
        };
        let mut held = Vec::new();
        for _ in 0..TOTAL / MAX_OBJECT_SIZE {
            let gathered = memory.buffer(&mut endless()).await;
            assert_eq!(
                (gathered.bytes.len(), memory.held() % MAX_OBJECT_SIZE),
                (MAX_OBJECT_SIZE, 0)
            );
            held.push(gathered);
        }
        assert_eq!(memory.held(), TOTAL);
        let mut waiting = endless();
        let mut another = Box::pin(memory.buffer(&mut waiting));
        assert!((&mut another).now_or_never().is_none(), "all is held");
        held.pop();
        assert!(!another.await.bytes.is_empty());
    }

    #[tokio::test]
    async fn end_of_a_body_is_told_with_its_last_bytes() {
        let memory = BodyMemory::default();
        let mut intake =
            BodyReader::new(stream::iter([Ok(Bytes::from_static(b"abcd"))]).boxed(), 3);
        let gathered = memory.buffer(&mut intake).await;
        assert_eq!(&gathered.bytes[..], b"abc");
        let surplus = gathered.end;
        assert!(
            matches!(
                surplus,
                Some(BodyEnd::Stopped(StagingError::TooLarge { limit: 3 }))
            ),
            "{surplus:?}"
        );
    }
}
