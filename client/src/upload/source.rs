//! A local file, read at offsets through one handle, so that parts can be sent in parallel and renaming does not mix it
//! up with another file.

use super::progress::Meter;
use crate::api::STALL_TIMEOUT;
use crate::sha256::Sha256Digest;
use anyhow::Context;
use bytes::Bytes;
use futures::stream;
use reqwest::Body;
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until},
};

/// Bytes per read.
const BLOCK: u64 = 256 * 1024;

/// An open file, and its state when the upload started.
#[derive(Debug)]
pub(super) struct LocalFile {
    pub(super) path: PathBuf,
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) modified: SystemTime,
    file: Arc<File>,
}

impl LocalFile {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let path = path.canonicalize()?;
        // Opening a pipe or a device may block forever.
        anyhow::ensure!(path.metadata()?.is_file(), "not a regular file");
        let name = path
            .file_name()
            .context("no file name")?
            .to_string_lossy()
            .into_owned();
        let file = File::open(&path)?;
        let metadata = file.metadata()?;
        Ok(Self {
            name,
            size: metadata.len(),
            modified: metadata.modified()?,
            file: Arc::new(file),
            path,
        })
    }

    /// Rejects a file that was modified since [`Self::open`]: the bytes sent may be a mix of old and new.
    pub(super) fn require_unchanged(&self) -> anyhow::Result<()> {
        let metadata = self.file.metadata()?;
        let same = metadata.len() == self.size && metadata.modified()? == self.modified;
        anyhow::ensure!(same, "modified during the upload; upload it again");
        Ok(())
    }

    /// Hashes a range on a blocking thread.
    pub(super) async fn hash(&self, range: Range<u64>) -> io::Result<Sha256Digest> {
        self.hash_aside(range).finish().await
    }

    /// Starts hashing the whole file on a blocking thread, which stops when the returned task is dropped.
    pub(super) fn hash_whole(&self) -> HashTask {
        self.hash_aside(0..self.size)
    }

    fn hash_aside(&self, range: Range<u64>) -> HashTask {
        let (file, stop) = (Arc::clone(&self.file), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let task = spawn_blocking(move || {
            let mut hasher = Sha256::new();
            let mut at = range.start;
            while at < range.end && !stopped.load(Ordering::Relaxed) {
                let block = read(&file, at..range.end)?;
                hasher.update(&block);
                at += block.len() as u64;
            }
            Ok(Sha256Digest::from_hasher(hasher))
        });
        HashTask { task, stop }
    }

    /// Returns a range as a request body, counted by the meter.
    pub(super) fn send(&self, range: Range<u64>, meter: &Meter) -> OutgoingBody {
        let flow = Arc::new(Transfer {
            meter: meter.clone(),
            state: Mutex::new(TransferState {
                sent: 0,
                at: Instant::now(),
                fault: None,
            }),
        });
        let state = (Arc::clone(&self.file), range, Arc::clone(&flow));
        let blocks = stream::try_unfold(state, |(file, range, flow)| async move {
            if range.is_empty() {
                return Ok::<_, io::Error>(None);
            }
            let (reader, wanted) = (Arc::clone(&file), range.clone());
            let read = spawn_blocking(move || read(&reader, wanted))
                .await
                .map_err(io::Error::other);
            let block = read.flatten().map_err(|error| flow.fail(error))?;
            let length = block.len() as u64;
            flow.add(length);
            Ok(Some((block, (file, range.start + length..range.end, flow))))
        });
        OutgoingBody {
            body: Body::wrap_stream(blocks),
            flow,
        }
    }
}

/// Reads the first block of a range.
fn read(file: &File, range: Range<u64>) -> io::Result<Bytes> {
    let length = BLOCK.min(range.end - range.start);
    let mut block = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut block, range.start)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::other("truncated during the upload"),
            _ => error,
        })?;
    Ok(block.into())
}

/// A digest being computed.
#[derive(Debug)]
pub(super) struct HashTask {
    task: JoinHandle<io::Result<Sha256Digest>>,
    stop: Arc<AtomicBool>,
}

impl HashTask {
    pub(super) async fn finish(mut self) -> io::Result<Sha256Digest> {
        (&mut self.task).await.map_err(io::Error::other).flatten()
    }
}

impl Drop for HashTask {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A request body, and the progress of its transfer.
#[derive(Debug)]
pub(super) struct OutgoingBody {
    pub(super) body: Body,
    pub(super) flow: Arc<Transfer>,
}

/// The progress of a transfer.
#[derive(Debug)]
pub(super) struct Transfer {
    meter: Meter,
    state: Mutex<TransferState>,
}

#[derive(Debug)]
struct TransferState {
    sent: u64,
    at: Instant,
    fault: Option<io::Error>,
}

impl Transfer {
    /// Returns when there was no progress for the stall timeout.
    pub(super) async fn stalled(&self) {
        loop {
            let until = self.state().at + STALL_TIMEOUT;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }

    /// Subtracts what was sent from the progress; returns the error if reading the file failed.
    pub(super) fn give_up(&self) -> Option<io::Error> {
        let mut state = self.state();
        self.meter.subtract(std::mem::take(&mut state.sent));
        state.fault.take()
    }

    fn add(&self, bytes: u64) {
        let mut state = self.state();
        state.sent += bytes;
        state.at = Instant::now();
        self.meter.add(bytes);
    }

    /// Stores the error, which the HTTP client would hide, and returns one that aborts the request.
    fn fail(&self, error: io::Error) -> io::Error {
        let kind = error.kind();
        self.state().fault = Some(error);
        kind.into()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, TransferState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn source(bytes: &[u8]) -> (tempfile::NamedTempFile, LocalFile) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let source = LocalFile::open(file.path()).unwrap();
        (file, source)
    }

    #[tokio::test]
    async fn hashes_cover_their_range() {
        let bytes: Vec<u8> = (0..700_000_u32).map(|n| (n % 251) as u8).collect();
        let (_file, source) = source(&bytes);
        assert_eq!(
            source.hash(10..500_000).await.unwrap(),
            Sha256Digest::of(&bytes[10..500_000])
        );
        assert_eq!(
            source.hash_whole().finish().await.unwrap(),
            Sha256Digest::of(&bytes)
        );
    }

    #[tokio::test]
    async fn file_that_grew_or_shrank_is_refused() {
        let (mut file, source) = source(b"ten bytes!");
        source.require_unchanged().unwrap();
        file.write_all(b"more").unwrap();
        file.flush().unwrap();
        assert!(source.require_unchanged().is_err());
        file.as_file().set_len(3).unwrap();
        assert!(
            source
                .hash_whole()
                .finish()
                .await
                .unwrap_err()
                .to_string()
                .contains("truncated")
        );
    }

    #[test]
    fn folders_are_no_files() {
        let folder = tempfile::tempdir().unwrap();
        assert!(
            LocalFile::open(folder.path())
                .unwrap_err()
                .to_string()
                .contains("regular file")
        );
    }
}
