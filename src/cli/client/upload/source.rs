//! A local file on its way out: read at offsets through one handle, so that parts can go in parallel and renaming
//! the file does not mix it with another.

use super::progress::Meter;
use crate::cli::client::api::PATIENCE;
use anyhow::Context;
use bytes::Bytes;
use futures::stream;
use landfall_core::digest::Sha256Digest;
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

/// Bytes read at once.
const BLOCK: u64 = 256 * 1024;

/// An open file as it was when its upload began.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) name: String,
    pub(super) size: u64,
    pub(super) modified: SystemTime,
    file: Arc<File>,
}

impl Source {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let path = path.canonicalize()?;
        // Opening a pipe or a device may never end.
        anyhow::ensure!(path.metadata()?.is_file(), "it is not a regular file");
        let name = path
            .file_name()
            .context("it has no name")?
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

    /// Refuses a file that was written to since [`Self::open`]: what was sent of it may be half old, half new.
    pub(super) fn require_unchanged(&self) -> anyhow::Result<()> {
        let metadata = self.file.metadata()?;
        let same = metadata.len() == self.size && metadata.modified()? == self.modified;
        anyhow::ensure!(
            same,
            "it was written to while it was uploaded; upload it again"
        );
        Ok(())
    }

    /// Hashes some of the bytes on a blocking thread.
    pub(super) async fn hash(&self, range: Range<u64>) -> io::Result<Sha256Digest> {
        self.hash_aside(range).finish().await
    }

    /// Begins to hash all bytes on a blocking thread, which ends early when its handle is dropped.
    pub(super) fn hash_whole(&self) -> Hashing {
        self.hash_aside(0..self.size)
    }

    fn hash_aside(&self, range: Range<u64>) -> Hashing {
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
        Hashing { task, stop }
    }

    /// Some of the bytes as a request's body, counted by the meter.
    pub(super) fn send(&self, range: Range<u64>, meter: &Meter) -> Outgoing {
        let flow = Arc::new(Flow {
            meter: meter.clone(),
            state: Mutex::new(FlowState {
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
        Outgoing {
            body: Body::wrap_stream(blocks),
            flow,
        }
    }
}

/// The first block of a range.
fn read(file: &File, range: Range<u64>) -> io::Result<Bytes> {
    let length = BLOCK.min(range.end - range.start);
    let mut block = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut block, range.start)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                io::Error::other("it became shorter while it was uploaded")
            }
            _ => error,
        })?;
    Ok(block.into())
}

/// A digest in the making.
#[derive(Debug)]
pub(super) struct Hashing {
    task: JoinHandle<io::Result<Sha256Digest>>,
    stop: Arc<AtomicBool>,
}

impl Hashing {
    pub(super) async fn finish(mut self) -> io::Result<Sha256Digest> {
        (&mut self.task).await.map_err(io::Error::other).flatten()
    }
}

impl Drop for Hashing {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// A body, and what is known of it while it goes out.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) body: Body,
    pub(super) flow: Arc<Flow>,
}

/// How far a body has got.
#[derive(Debug)]
pub(super) struct Flow {
    meter: Meter,
    state: Mutex<FlowState>,
}

#[derive(Debug)]
struct FlowState {
    sent: u64,
    at: Instant,
    fault: Option<io::Error>,
}

impl Flow {
    /// Returns when nothing has moved for as long as the patience lasts.
    pub(super) async fn stalled(&self) {
        loop {
            let until = self.state().at + PATIENCE;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }

    /// Uncounts what was sent in vain; the fault, if reading the file was what ended the request.
    pub(super) fn give_up(&self) -> Option<io::Error> {
        let mut state = self.state();
        self.meter.withdraw(std::mem::take(&mut state.sent));
        state.fault.take()
    }

    fn add(&self, bytes: u64) {
        let mut state = self.state();
        state.sent += bytes;
        state.at = Instant::now();
        self.meter.add(bytes);
    }

    /// Keeps the fault, which the HTTP client would bury, and makes one that ends the request.
    fn fail(&self, error: io::Error) -> io::Error {
        let kind = error.kind();
        self.state().fault = Some(error);
        kind.into()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, FlowState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn source(bytes: &[u8]) -> (tempfile::NamedTempFile, Source) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let source = Source::open(file.path()).unwrap();
        (file, source)
    }

    #[tokio::test]
    async fn hashes_cover_their_range() {
        let bytes: Vec<u8> = (0..700_000_u32).map(|n| (n % 251) as u8).collect();
        let (_file, source) = source(&bytes);
        assert_eq!(
            source.hash(10..500_000).await.unwrap(),
            Sha256Digest::compute(&bytes[10..500_000])
        );
        assert_eq!(
            source.hash_whole().finish().await.unwrap(),
            Sha256Digest::compute(&bytes)
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
                .contains("shorter")
        );
    }

    #[test]
    fn folders_are_no_files() {
        let folder = tempfile::tempdir().unwrap();
        assert!(
            Source::open(folder.path())
                .unwrap_err()
                .to_string()
                .contains("regular file")
        );
    }
}
