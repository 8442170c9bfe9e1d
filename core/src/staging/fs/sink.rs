//! The writing end of a staged file; it runs on blocking threads while the next bytes are received.

use crate::{
    digest::Sha256State,
    failpoint,
    fs_io::{
        direct_io::{self, ALIGNMENT, BufferPool, DIRECT_IO_THRESHOLD, IO_SIZE},
        read,
    },
    staging::{
        Hashes, Held, StagingError,
        body::{BodyEnd, BodyReader},
        capacity::Capacity,
        hashes::Hasher,
    },
};
use bytes::Bytes;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    num::NonZeroU64,
    path::PathBuf,
    sync::Arc,
};
use tokio::task::JoinHandle;

/// After how many written bytes the kernel is told to start writing them to disk.
const WRITE_BACK_SIZE: u64 = 8 * 1024 * 1024;

/// The file that bytes are written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SinkTarget {
    /// A new file. It is removed unless [`FileSink::keep`] is called.
    New,
    /// The end of a file of exactly `length` bytes that this process wrote and no other process writes.
    Append { length: u64 },
}

impl SinkTarget {
    /// Offset of the first byte written, in bytes.
    fn offset(self) -> u64 {
        match self {
            Self::New => 0,
            Self::Append { length } => length,
        }
    }
}

/// A file being written. It is opened by the first write, so that a small body takes one call to a blocking thread.
#[derive(Debug)]
pub(super) struct FileSink {
    path: PathBuf,
    target: SinkTarget,
    file: Option<File>,
    kept: bool,
    hasher: Hasher,
    capacity: Arc<Capacity>,
    written: u64,
    /// How many bytes are being written to disk, or have been.
    begun: u64,
    /// Buffers for direct I/O; `None` when it is not used.
    buffers: Option<Arc<BufferPool>>,
    is_direct: bool,
    /// Dropped after the file is removed.
    _held: Option<Held>,
}

impl Drop for FileSink {
    fn drop(&mut self) {
        if self.target == SinkTarget::New && self.file.is_some() && !self.kept {
            // A crash before this line leaves a file that no row lists; the sweep deletes it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The result of writing a body.
#[derive(Debug)]
pub(super) struct SinkOutcome {
    pub(super) sink: FileSink,
    /// Why the body ended early, if it did; everything written before is durable.
    pub(super) stopped: Option<StagingError>,
}

impl FileSink {
    pub(super) fn new(
        path: PathBuf,
        target: SinkTarget,
        hasher: Hasher,
        capacity: Arc<Capacity>,
        buffers: Option<Arc<BufferPool>>,
        held: Option<Held>,
    ) -> Self {
        Self {
            path,
            target,
            file: None,
            kept: false,
            hasher,
            capacity,
            written: 0,
            begun: 0,
            buffers,
            is_direct: false,
            _held: held,
        }
    }

    /// Number of bytes written by this sink.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Takes the hash state of all bytes of the file; `None` if unknown.
    pub(super) fn take_running(&mut self) -> Option<Sha256State> {
        self.hasher.take_running()
    }

    /// Returns the digests; a new file is removed.
    pub(super) fn hashes(mut self) -> Hashes {
        std::mem::take(&mut self.hasher).finish()
    }

    /// Keeps the file, and returns its digests.
    pub(super) fn keep(mut self) -> Hashes {
        self.kept = true;
        std::mem::take(&mut self.hasher).finish()
    }

    /// Writes a whole body. Each batch is hashed on another thread while it is written and the next batch is received.
    /// The file is synced at the end.
    pub(super) async fn take(
        self,
        mut intake: BodyReader<'_>,
    ) -> Result<SinkOutcome, StagingError> {
        let mut sink = self;
        let mut batch = intake.batch(sink.next()).await;
        loop {
            let end = batch.end.take();
            let pieces: Arc<[Bytes]> = std::mem::take(&mut batch.pieces).into();
            let last = end.is_some();
            // The last batch is hashed while it is written: it may be cut short, and it is often the only one, and
            // small.
            let hashing = (!last).then(|| sink.hash_aside(Arc::clone(&pieces)));
            let writing = tokio::task::spawn_blocking(move || {
                let outcome = sink.write_batch(&pieces, last);
                (sink, outcome)
            });
            if !last {
                batch = intake.batch(IO_SIZE).await;
            }
            let outcome = writing.await;
            let (back, outcome) =
                outcome.map_err(|lost| StagingError::io("write")(io::Error::other(lost)))?;
            sink = back;
            if let Some(hashing) = hashing {
                let hashed = hashing.await;
                sink.hasher =
                    hashed.map_err(|lost| StagingError::io("hash")(io::Error::other(lost)))?;
            }
            let stopped = match (outcome, end) {
                (Ok(()), None) => continue,
                (Ok(()), Some(BodyEnd::Whole)) => None,
                (Ok(()), Some(BodyEnd::Stopped(error))) => Some(error),
                (Err(error), _) => {
                    if !last {
                        // More bytes were hashed than written.
                        sink.hasher.take_running();
                    }
                    Some(error)
                }
            };
            return Ok(SinkOutcome { sink, stopped });
        }
    }

    /// Hashes a batch on a separate thread; writing the batch then hashes nothing.
    fn hash_aside(&mut self, pieces: Arc<[Bytes]>) -> JoinHandle<Hasher> {
        let mut hasher = std::mem::take(&mut self.hasher);
        tokio::task::spawn_blocking(move || {
            for piece in &*pieces {
                hasher.update(piece);
            }
            hasher
        })
    }

    /// After an error, [`Self::written`] still tells how many bytes are durable.
    fn write_batch(&mut self, pieces: &[Bytes], last: bool) -> Result<(), StagingError> {
        let written = self.write_pieces(pieces);
        if written.is_ok() && !last {
            self.begin_writing();
            return Ok(());
        }
        let synced = self.sync();
        if synced.is_err() {
            // Everything that a failed sync covered may be lost.
            self.written = 0;
            self.hasher.take_running();
        }
        written.and(synced)
    }

    fn write_pieces(&mut self, pieces: &[Bytes]) -> Result<(), StagingError> {
        failpoint!("staging.writing");
        let size: usize = pieces.iter().map(Bytes::len).sum();
        self.capacity.check_free(size as u64)?;
        self.capacity.count(size as u64)?;
        if self.file.is_none() {
            self.file = Some(self.open()?);
        }
        if let Some(buffers) = self.buffers_for(size)? {
            return buffers.joined(pieces, |bytes| self.write_all(bytes));
        }
        for piece in pieces {
            self.write_all(piece)?;
        }
        Ok(())
    }

    fn position(&self) -> u64 {
        self.target.offset() + self.written
    }

    /// Returns the size of the next batch, chosen so that later batches are aligned.
    fn next(&self) -> usize {
        let ahead = self.position() % ALIGNMENT as u64;
        IO_SIZE - usize::try_from(ahead).unwrap_or(0)
    }

    /// Returns the buffers to write a batch of `size` bytes with direct I/O, if it applies, and sets the file's mode.
    fn buffers_for(&mut self, size: usize) -> Result<Option<Arc<BufferPool>>, StagingError> {
        let Some(file) = &self.file else {
            return Err(StagingError::Gone);
        };
        let aligned = self.position().is_multiple_of(ALIGNMENT as u64);
        let direct = self.buffers.is_some()
            && size == IO_SIZE
            && aligned
            && self.position() >= DIRECT_IO_THRESHOLD;
        if direct != self.is_direct {
            let set = direct_io::set(file, direct).map_err(StagingError::io("write"))?;
            self.is_direct = direct && set;
            if direct && !set {
                self.buffers = None;
            }
        }
        Ok(self.buffers.clone().filter(|_| self.is_direct))
    }

    fn write_all(&mut self, bytes: &[u8]) -> Result<(), StagingError> {
        let Some(file) = &mut self.file else {
            return Err(StagingError::Gone);
        };
        let mut left = bytes;
        while !left.is_empty() {
            match file.write(left) {
                Ok(0) => return Err(StagingError::Full),
                Ok(written) => {
                    self.hasher.update(&left[..written]);
                    self.written += written as u64;
                    left = &left[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // The file system requires more than this alignment.
                Err(error) if self.is_direct && error.kind() == io::ErrorKind::InvalidInput => {
                    self.buffers = None;
                }
                Err(error) => return Err(StagingError::io("write")(error)),
            }
            if self.is_direct && !left.is_empty() {
                // The rest is no longer aligned.
                direct_io::set(file, false).map_err(StagingError::io("write"))?;
                self.is_direct = false;
            }
        }
        Ok(())
    }

    fn begin_writing(&mut self) {
        let more = self.written - self.begun;
        if let (Some(file), Some(size)) = (&self.file, NonZeroU64::new(more))
            && more >= WRITE_BACK_SIZE
            && !self.is_direct
        {
            read::begin_writing(file, self.target.offset() + self.begun, size);
            self.begun = self.written;
        }
    }

    fn open(&self) -> Result<File, StagingError> {
        let mut options = OpenOptions::new();
        options
            .write(true)
            .create_new(self.target == SinkTarget::New);
        let mut file = options
            .open(&self.path)
            .map_err(StagingError::io("open a file"))?;
        if let SinkTarget::Append { length } = self.target {
            let found = file.metadata().map_err(StagingError::io("look"))?.len();
            if found != length {
                let expected = length;
                return Err(StagingError::WrongLength { expected, found });
            }
            file.seek(SeekFrom::Start(length))
                .map_err(StagingError::io("seek"))?;
        }
        Ok(file)
    }

    fn sync(&self) -> Result<(), StagingError> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        failpoint!("staging.written");
        let synced = match self.target {
            SinkTarget::New => file.sync_all(),
            // fdatasync(2) includes the length, all the metadata that is needed for reading.
            SinkTarget::Append { .. } => file.sync_data(),
        };
        synced.map_err(StagingError::io("sync a file"))
    }
}
