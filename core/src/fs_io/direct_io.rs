//! Direct I/O for large files, bypassing the page cache (`open(2)`, `O_DIRECT`).
//!
//! Bytes that will not be read again soon need no copy in the page cache. Direct I/O halves the processor time, evicts
//! nothing from the cache, and leaves nothing to be written back by the final sync. Linux requires memory, offset and
//! length to be aligned; whatever is not aligned goes through the cache as usual.

use bytes::Bytes;
use std::{
    fs::File,
    io,
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Alignment of memory, offset and length, in bytes: the largest that disks and file systems are known to require.
pub(crate) const ALIGNMENT: usize = 4096;

/// Size of one read or write, in bytes.
pub(crate) const IO_SIZE: usize = 512 * 1024;

/// Files up to this size, in bytes, go through the cache, since small files are often read soon.
pub(crate) const DIRECT_IO_THRESHOLD: u64 = 8 * 1024 * 1024;

/// Maximum number of buffers kept for reuse.
const MAX_POOLED_BUFFERS: usize = 8;

/// An aligned buffer for one read or write.
#[derive(Debug)]
pub(crate) struct AlignedBuffer {
    memory: Box<[u8]>,
    range: Range<usize>,
}

impl AlignedBuffer {
    pub(crate) fn new() -> Self {
        let memory = vec![0; IO_SIZE + ALIGNMENT].into_boxed_slice();
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        let range = start..start + IO_SIZE;
        Self { memory, range }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.memory[self.range.clone()]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.memory[self.range.clone()]
    }

    /// Copies the pieces, [`IO_SIZE`] bytes in total, into the buffer.
    fn fill(&mut self, pieces: &[Bytes]) -> &[u8] {
        let mut left = self.as_mut_slice();
        for piece in pieces {
            let (place, rest) = left.split_at_mut(piece.len());
            place.copy_from_slice(piece);
            left = rest;
        }
        self.as_slice()
    }
}

/// A pool of buffers.
#[derive(Debug, Default)]
pub(crate) struct BufferPool(Mutex<Vec<AlignedBuffer>>);

impl BufferPool {
    /// Passes the pieces, [`IO_SIZE`] bytes in total, to `work` as one slice of aligned memory.
    pub(crate) fn joined<T>(&self, pieces: &[Bytes], work: impl FnOnce(&[u8]) -> T) -> T {
        let free = self.free().pop();
        let mut buffer = free.unwrap_or_else(AlignedBuffer::new);
        let outcome = work(buffer.fill(pieces));
        let mut free = self.free();
        if free.len() < MAX_POOLED_BUFFERS {
            free.push(buffer);
        }
        outcome
    }

    fn free(&self) -> MutexGuard<'_, Vec<AlignedBuffer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Enables or disables direct I/O for subsequent reads and writes. Returns false if the file system does not support
/// it.
#[cfg(target_os = "linux")]
pub(crate) fn set(file: &File, direct: bool) -> io::Result<bool> {
    use rustix::{
        fs::{OFlags, fcntl_getfl, fcntl_setfl},
        io::Errno,
    };
    let mut flags = fcntl_getfl(file)?;
    flags.set(OFlags::DIRECT, direct);
    match fcntl_setfl(file, flags) {
        Ok(()) => Ok(true),
        Err(Errno::INVAL) if direct => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn set(_: &File, direct: bool) -> io::Result<bool> {
    Ok(!direct)
}
