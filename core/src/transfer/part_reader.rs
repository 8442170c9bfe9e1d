//! Reads staged bytes as parts of an object, and hashes them on the way.

use super::{Piece, TransferError};
use crate::{
    digest::Sha256Digest,
    fs_io::{
        direct_io::{ALIGNMENT, DIRECT_IO_THRESHOLD},
        read::{BLOCK, announce_sequential, fill},
    },
    staging::{Staging, StagingBackend, StagingError, fs::FsStaging},
};
use bytes::Bytes;
use futures::TryStreamExt;
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{sync::mpsc, task::JoinHandle};

/// The bytes of a part, and its own digest if it must be signed with it.
#[derive(Debug)]
pub(super) struct PartBytes {
    pub(super) bytes: Bytes,
    pub(super) digest: Option<Sha256Digest>,
}

/// Reads parts ahead: one is buffered while the next is read. Dropping this stops the reading.
#[derive(Debug)]
pub(super) struct PartReader {
    parts: mpsc::Receiver<PartBytes>,
    reading: JoinHandle<Result<Sha256Digest, TransferError>>,
}

impl PartReader {
    /// Reads all pieces as parts of `size` bytes; the last part is the remainder.
    pub(super) fn read(staging: &Staging, pieces: &[Piece], size: u64, signed: bool) -> Self {
        let (sender, parts) = mpsc::channel(1);
        let filling = PartBuilder {
            size: usize::try_from(size).unwrap_or(usize::MAX),
            hasher: Sha256::new(),
            signed,
        };
        let reading = match &staging.backend {
            StagingBackend::Fs(fs) => {
                let files: Vec<PieceFile> = pieces
                    .iter()
                    .map(|piece| PieceFile::new(fs, piece))
                    .collect();
                tokio::task::spawn_blocking(move || filling.read_files(&files, &sender))
            }
            StagingBackend::S3(_) => {
                let (staging, pieces) = (staging.clone(), pieces.to_vec());
                tokio::spawn(async move { filling.read_staging(&staging, &pieces, &sender).await })
            }
        };
        Self { parts, reading }
    }

    /// Returns the next part; `None` after the last, or when reading failed, which [`Self::finish`] reports.
    pub(super) async fn next(&mut self) -> Option<PartBytes> {
        self.parts.recv().await
    }

    /// Returns the digest of all bytes.
    pub(super) async fn finish(self) -> Result<Sha256Digest, TransferError> {
        drop(self.parts);
        let lost =
            |lost| StagingError::io("be read")(io::Error::other::<tokio::task::JoinError>(lost));
        self.reading.await.map_err(lost)?
    }
}

struct PartBuilder {
    size: usize,
    hasher: Sha256,
    signed: bool,
}

impl PartBuilder {
    fn part(&self, bytes: Vec<u8>) -> PartBytes {
        PartBytes {
            digest: self.signed.then(|| Sha256Digest::compute(&bytes)),
            bytes: bytes.into(),
        }
    }

    /// Blocks. Ends with an error when the receiver of the parts is gone.
    fn read_files(
        mut self,
        files: &[PieceFile],
        sender: &mpsc::Sender<PartBytes>,
    ) -> Result<Sha256Digest, TransferError> {
        let mut left: u64 = files.iter().map(|file| file.size).sum();
        let mut part = Vec::new();
        for piece in files {
            let mut file = open_piece(piece)?;
            announce_sequential(&file);
            let mut rest = piece.size;
            while rest > 0 {
                if part.capacity() == 0 {
                    part.reserve_exact(usize::try_from(left).unwrap_or(self.size).min(self.size));
                }
                let wanted = BLOCK.min(self.size - part.len());
                let wanted = usize::try_from(rest).map_or(wanted, |rest| rest.min(wanted));
                let from = part.len();
                fill(&mut file, &mut part, wanted).map_err(unreadable)?;
                self.hasher.update(&part[from..]);
                rest -= wanted as u64;
                left -= wanted as u64;
                if part.len() == self.size {
                    let full = self.part(std::mem::take(&mut part));
                    sender.blocking_send(full).map_err(|_| receiver_gone())?;
                }
            }
        }
        if !part.is_empty() {
            sender
                .blocking_send(self.part(part))
                .map_err(|_| receiver_gone())?;
        }
        Ok(Sha256Digest::from_hasher(self.hasher))
    }

    async fn read_staging(
        mut self,
        staging: &Staging,
        pieces: &[Piece],
        sender: &mpsc::Sender<PartBytes>,
    ) -> Result<Sha256Digest, TransferError> {
        let (mut held, mut length) = (Vec::new(), 0);
        let mut bytes = staging.read_pieces(pieces).await?;
        while let Some(mut chunk) = bytes.try_next().await? {
            while !chunk.is_empty() {
                let fits = chunk.len().min(self.size - length);
                length += fits;
                held.push(chunk.split_to(fits));
                if length == self.size {
                    self = self.send(std::mem::take(&mut held), sender).await?;
                    length = 0;
                }
            }
        }
        if length > 0 {
            self = self.send(held, sender).await?;
        }
        Ok(Sha256Digest::from_hasher(self.hasher))
    }

    async fn send(
        mut self,
        held: Vec<Bytes>,
        sender: &mpsc::Sender<PartBytes>,
    ) -> Result<Self, TransferError> {
        let hashed = tokio::task::spawn_blocking(move || {
            let bytes = held.concat();
            self.hasher.update(&bytes);
            (self.part(bytes), self)
        });
        let (part, filling) = hashed
            .await
            .map_err(|lost| StagingError::io("hash")(io::Error::other(lost)))?;
        sender.send(part).await.map_err(|_| receiver_gone())?;
        Ok(filling)
    }
}

/// A piece in a local file.
#[derive(Clone, Debug)]
pub(super) struct PieceFile {
    pub(super) path: PathBuf,
    /// Offset of the first counted byte, in bytes.
    pub(super) offset: u64,
    /// According to the database, in bytes.
    pub(super) size: u64,
    /// Whether the file is large enough for direct I/O.
    pub(super) direct: bool,
}

impl PieceFile {
    pub(super) fn new(from: &FsStaging, piece: &Piece) -> Self {
        Self {
            path: from.path(piece.key),
            offset: piece.offset,
            size: piece.size,
            direct: from.is_direct()
                && piece.size >= DIRECT_IO_THRESHOLD
                && piece.offset.is_multiple_of(ALIGNMENT as u64),
        }
    }
}

/// Opens a piece at its first byte. The file may be longer than the counted bytes, but not shorter.
pub(super) fn open_piece(piece: &PieceFile) -> Result<File, TransferError> {
    let mut file = File::open(&piece.path).map_err(StagingError::io("open a file"))?;
    let there = length(&file)?;
    let found = there.saturating_sub(piece.offset);
    if found < piece.size {
        let expected = piece.size;
        return Err(TransferError::SizeMismatch { expected, found });
    }
    if piece.offset > 0 {
        file.seek(SeekFrom::Start(piece.offset))
            .map_err(StagingError::io("seek"))?;
    }
    Ok(file)
}

/// The length of the file, in bytes.
pub(super) fn length(file: &File) -> Result<u64, TransferError> {
    let metadata = file
        .metadata()
        .map_err(StagingError::io("read a file's metadata"))?;
    Ok(metadata.len())
}

fn unreadable(error: io::Error) -> TransferError {
    match error.kind() {
        // It had its full size when it was opened.
        io::ErrorKind::UnexpectedEof => TransferError::StagingGone,
        _ => StagingError::io("read a file")(error).into(),
    }
}

/// Nothing receives this error.
fn receiver_gone() -> TransferError {
    TransferError::Staging(StagingError::io("go on reading")(
        io::ErrorKind::BrokenPipe.into(),
    ))
}

/// Cancels the work of a blocking thread when dropped.
pub(super) struct CancelOnDrop(Arc<AtomicBool>);

/// The thread's side of a [`CancelOnDrop`].
pub(super) struct CancelFlag(Arc<AtomicBool>);

impl CancelOnDrop {
    pub(super) fn pair() -> (Self, CancelFlag) {
        let flag = Arc::new(AtomicBool::new(false));
        (Self(Arc::clone(&flag)), CancelFlag(flag))
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl CancelFlag {
    pub(super) fn check(&self) -> Result<(), TransferError> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(receiver_gone()),
            false => Ok(()),
        }
    }
}
