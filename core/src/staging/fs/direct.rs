//! Large bodies past the page cache (`open(2)`, `O_DIRECT`).
//!
//! Bytes that nobody reads again soon need no copy in memory: written from a buffer of their own they cost half the
//! processor time, push nothing else out of the cache, and leave nothing to be written back by the sync at the end.
//! Linux wants memory, offset and length aligned then; what does not fit goes through the cache as ever.

use bytes::Bytes;
use std::{
    fs::File,
    io,
    sync::{Mutex, PoisonError},
};

/// Of memory, offset and length, in bytes: the largest that disks and file systems are known to ask for.
pub(super) const ALIGNMENT: usize = 4096;

/// Buffers that are kept for the next batch.
const KEPT: usize = 8;

/// Aligned memory for one batch.
#[derive(Debug)]
struct Buffer {
    memory: Box<[u8]>,
    start: usize,
}

impl Buffer {
    fn new(size: usize) -> Self {
        let memory = vec![0; size + ALIGNMENT].into_boxed_slice();
        let start = memory.as_ptr().align_offset(ALIGNMENT);
        Self { memory, start }
    }

    /// Copies the pieces, which fit, one after the other.
    fn fill(&mut self, pieces: &[Bytes]) -> &[u8] {
        let mut end = self.start;
        for piece in pieces {
            self.memory[end..end + piece.len()].copy_from_slice(piece);
            end += piece.len();
        }
        &self.memory[self.start..end]
    }
}

/// Buffers of one size, used in turns.
#[derive(Debug)]
pub(super) struct Buffers {
    size: usize,
    free: Mutex<Vec<Buffer>>,
}

impl Buffers {
    pub(super) fn new(size: usize) -> Self {
        Self {
            size,
            free: Mutex::default(),
        }
    }

    /// Hands the pieces to `work` as one slice of aligned memory.
    pub(super) fn joined<T>(&self, pieces: &[Bytes], work: impl FnOnce(&[u8]) -> T) -> T {
        let free = self.free().pop();
        let mut buffer = free.unwrap_or_else(|| Buffer::new(self.size));
        let outcome = work(buffer.fill(pieces));
        let mut free = self.free();
        if free.len() < KEPT {
            free.push(buffer);
        }
        outcome
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<Buffer>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has what is written from now on go past the cache, or through it again. False where the file system has no such
/// thing.
#[cfg(target_os = "linux")]
pub(super) fn set(file: &File, direct: bool) -> io::Result<bool> {
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
pub(super) fn set(_: &File, _: bool) -> io::Result<bool> {
    Ok(false)
}
