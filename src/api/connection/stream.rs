//! Reads and writes of a connection: a client that does not read is disconnected, a request is active until its
//! response is sent completely, and nothing more is read of a head that is too long.

use super::timeouts::{ActiveRequest, ConnectionTimeouts};
use bytes::Bytes;
use futures::task::AtomicWaker;
use http_body_util::combinators::BoxBody;
use hyper::body::{Body, Frame, SizeHint};
use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep},
};

#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    write_timeout: Duration,
    /// The write timeout; runs while a write is pending.
    waiting: Option<Pin<Box<Sleep>>>,
    timeouts: ConnectionTimeouts,
    backpressure: WriteBackpressure,
}

impl Socket {
    pub(super) fn new(
        stream: TcpStream,
        write_timeout: Duration,
        timeouts: ConnectionTimeouts,
        backpressure: WriteBackpressure,
    ) -> Self {
        Self {
            stream,
            write_timeout,
            waiting: None,
            timeouts,
            backpressure,
        }
    }

    /// Returns the underlying connection, without read limits.
    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }

    fn progress<T>(
        &mut self,
        context: &mut Context<'_>,
        write: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if write.is_ready() {
            self.waiting = None;
            return write;
        }
        let deadline = Instant::now() + self.write_timeout;
        let waiting = self
            .waiting
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        ready!(waiting.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = self.timeouts.room();
        if room == 0 {
            // The connection's task has been notified, and takes the stream back.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let read = if buffer.remaining() <= room {
            Pin::new(&mut self.stream).poll_read(context, buffer)
        } else {
            let mut part = ReadBuf::new(buffer.initialize_unfilled_to(room));
            let read = Pin::new(&mut self.stream).poll_read(context, &mut part);
            let received = part.filled().len();
            buffer.advance(received);
            read
        };
        let received = buffer.filled().len() - before;
        if received > 0 {
            self.timeouts.received(received);
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.backpressure.written(&write);
        self.progress(context, write)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.backpressure.written(&write);
        self.progress(context, write)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flush = Pin::new(&mut self.stream).poll_flush(context);
        self.progress(context, flush)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Counts the bytes of a response that were passed to hyper but not written to the socket. No more is produced while
/// many are pending, so a client that does not read holds one chunk of its response and not all that hyper would
/// buffer.
#[derive(Clone, Debug, Default)]
pub(super) struct WriteBackpressure(Arc<Unsent>);

#[derive(Debug, Default)]
struct Unsent {
    bytes: AtomicUsize,
    waker: AtomicWaker,
}

/// In bytes; enough for small chunks to be sent together.
const MAX_UNSENT: usize = 32 * 1024;

impl WriteBackpressure {
    fn made(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    /// Heads and chunk framing are written too, so slightly less may be counted than is pending.
    fn written(&self, write: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(written)) = write {
            let subtract = |bytes: usize| Some(bytes.saturating_sub(*written));
            let _ = self
                .0
                .bytes
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, subtract);
            self.0.waker.wake();
        }
    }

    fn poll_room(&self, context: &mut Context<'_>) -> Poll<()> {
        if self.0.bytes.load(Ordering::Acquire) < MAX_UNSENT {
            return Poll::Ready(());
        }
        self.0.waker.register(context.waker());
        match self.0.bytes.load(Ordering::Acquire) < MAX_UNSENT {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

/// The body of a response; its request is active until all of it is sent.
#[derive(Debug)]
pub(super) struct TrackedBody {
    frames: BoxBody<Bytes, io::Error>,
    backpressure: Option<WriteBackpressure>,
    active_request: ActiveRequest,
}

impl TrackedBody {
    pub(super) fn new(
        frames: BoxBody<Bytes, io::Error>,
        backpressure: Option<WriteBackpressure>,
        active_request: ActiveRequest,
    ) -> Self {
        Self {
            frames,
            backpressure,
            active_request,
        }
    }
}

impl Body for TrackedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.active_request.next_chunk_requested();
        if let Some(backpressure) = &self.backpressure {
            ready!(backpressure.poll_room(context));
        }
        let frame = ready!(Pin::new(&mut self.frames).poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            self.active_request.chunk_sent();
            if let (Some(bytes), Some(backpressure)) = (frame.data_ref(), &self.backpressure) {
                backpressure.made(bytes.len());
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.frames.size_hint()
    }
}
