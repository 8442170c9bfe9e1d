//! Transfers from a folder to a folder: hashed, then linked, or copied where a link is impossible.
//!
//! A link shares the file with staging, so a segment is linked only if it is the whole object and has no writer any
//! more. Of all other segments the counted bytes are copied, by the kernel if they need not be hashed: on a file system
//! with reflinks the copy shares its blocks.

use super::{
    TransferError, TransferRequest,
    part_reader::{CancelOnDrop, PieceFile, length, open_piece},
};
use crate::{
    digest::Sha256Digest,
    fs_io::{
        direct_io::{self, AlignedBuffer, DIRECT_IO_THRESHOLD},
        read::announce_sequential,
    },
    staging::{StagingError, fs::FsStaging},
    storage::{
        StorageError,
        fs::{FsStorage, LinkOutcome, TemporaryFile},
    },
};
use sha2::{Digest, Sha256};
use std::{
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    sync::mpsc::sync_channel,
};

/// How many bytes are copied between two checks for cancellation.
const MAX_UNCANCELLABLE_COPY: u64 = 64 * 1024 * 1024;

/// Links the only piece and verifies it in its new location. Returns `None` when there are several pieces, when the
/// file contains or may get more than the counted bytes, or when a link is impossible.
pub(super) async fn link(
    from: &FsStaging,
    to: &FsStorage,
    request: &TransferRequest<'_>,
) -> Result<Option<Sha256Digest>, TransferError> {
    let [only] = request.pieces else {
        return Ok(None);
    };
    if only.may_grow || only.offset > 0 {
        return Ok(None);
    }
    let file = PieceFile::new(from, only);
    let digest = match request.trusted() {
        Some(known) => known,
        // Otherwise it would be read twice, again by the copy.
        None if file.clone().device().await? != to.device().await? => return Ok(None),
        None => pass(vec![file.clone()], None).await?.0,
    };
    request.check(digest)?;
    let (path, content) = (file.path.clone(), (digest, request.size()));
    let check = move || match length(&open_piece(&file)?)? {
        found if found == file.size => Ok(()),
        found => Err(TransferError::SizeMismatch {
            expected: file.size,
            found,
        }),
    };
    let linked = to.link_if(path, request.key, content, request.overwrite, check);
    match linked.await {
        Err(TransferError::SizeMismatch { expected, found }) if found > expected => Ok(None),
        linked => Ok((linked? != LinkOutcome::Impossible).then_some(digest)),
    }
}

pub(super) async fn copy(
    from: &FsStaging,
    to: &FsStorage,
    request: &TransferRequest<'_>,
) -> Result<Sha256Digest, TransferError> {
    let pieces = request.pieces.iter();
    let files = pieces.map(|piece| PieceFile::new(from, piece)).collect();
    let temporary = to.temporary().await?;
    let (digest, temporary) = match request.trusted() {
        Some(known) => (known, Some(copy_files(files, temporary).await?)),
        None => pass(files, Some(temporary)).await?,
    };
    request.check(digest)?;
    if let Some(temporary) = temporary {
        let content = (digest, request.size());
        to.publish(temporary, request.key, content, request.overwrite)
            .await?;
    }
    Ok(digest)
}

impl PieceFile {
    async fn device(self) -> Result<u64, TransferError> {
        let looked = crate::fs_io::fsync::blocking(move || std::fs::metadata(&self.path));
        let metadata = looked.await.map_err(StagingError::io("check for a file"))?;
        Ok(metadata.dev())
    }
}

/// Copies all files, one after the other, inside the kernel where possible (`copy_file_range(2)`).
async fn copy_files(
    files: Vec<PieceFile>,
    mut copy: TemporaryFile,
) -> Result<TemporaryFile, TransferError> {
    let (abandon, abandoned) = CancelOnDrop::pair();
    let work = tokio::task::spawn_blocking(move || {
        for piece in &files {
            let file = open_piece(piece)?;
            let mut left = piece.size;
            while left > 0 {
                abandoned.check()?;
                let mut some = (&file).take(left.min(MAX_UNCANCELLABLE_COPY));
                let copied = io::copy(&mut some, &mut copy.file);
                match copied.map_err(StorageError::io("copy a file"))? {
                    0 => return Err(TransferError::StagingGone),
                    copied => left -= copied,
                }
            }
        }
        Ok(copy)
    });
    let done = work.await;
    drop(abandon);
    done.map_err(|lost| StagingError::io("be read")(io::Error::other(lost)))?
}

/// Hashes all files in one pass, on blocking threads, and copies them on the way if there is a destination.
async fn pass(
    files: Vec<PieceFile>,
    mut copy: Option<TemporaryFile>,
) -> Result<(Sha256Digest, Option<TemporaryFile>), TransferError> {
    let (abandon, abandoned) = CancelOnDrop::pair();
    let work = tokio::task::spawn_blocking(move || {
        let mut take = |bytes: &[u8]| {
            abandoned.check()?;
            let Some(copy) = &mut copy else {
                return Ok(());
            };
            let written = copy.file.write_all(bytes);
            Ok(written.map_err(StorageError::io("write a file"))?)
        };
        let size: u64 = files.iter().map(|piece| piece.size).sum();
        let digest = match size < DIRECT_IO_THRESHOLD {
            true => hash(&files, &mut take),
            false => hash_beside(&files, &mut take),
        };
        Ok((digest?, copy))
    });
    let done = work.await;
    drop(abandon);
    done.map_err(|lost| StagingError::io("be read")(io::Error::other(lost)))?
}

type HashedChunk<'a> = dyn FnMut(&[u8]) -> Result<(), TransferError> + 'a;

fn hash(files: &[PieceFile], take: &mut HashedChunk<'_>) -> Result<Sha256Digest, TransferError> {
    let mut hasher = Sha256::new();
    read(files, AlignedBuffer::new(), &mut |buffer, size| {
        let bytes = &buffer.as_slice()[..size];
        take(bytes)?;
        hasher.update(bytes);
        Ok(buffer)
    })?;
    Ok(Sha256Digest::from_hasher(hasher))
}

/// [`hash`] for large files: a thread hashes one buffer while the next is read.
fn hash_beside(
    files: &[PieceFile],
    take: &mut HashedChunk<'_>,
) -> Result<Sha256Digest, TransferError> {
    let ended = || StagingError::io("hash a file")(io::ErrorKind::BrokenPipe.into());
    std::thread::scope(|threads| {
        let (full, hashing) = sync_channel::<(AlignedBuffer, usize)>(1);
        let (spent, free) = sync_channel(1);
        let hasher = threads.spawn(move || {
            let mut hasher = Sha256::new();
            let mut other = AlignedBuffer::new();
            for (buffer, size) in hashing {
                // The reader continues with one buffer while this thread hashes the other.
                if spent.send(std::mem::replace(&mut other, buffer)).is_err() {
                    break;
                }
                hasher.update(&other.as_slice()[..size]);
            }
            Sha256Digest::from_hasher(hasher)
        });
        let outcome = read(files, AlignedBuffer::new(), &mut |buffer, size| {
            take(&buffer.as_slice()[..size])?;
            full.send((buffer, size)).map_err(|_| ended())?;
            Ok(free.recv().map_err(|_| ended())?)
        });
        drop(full);
        let digest = hasher.join().map_err(|_| ended())?;
        outcome.map(|()| digest)
    })
}

/// Reads the files one after the other, large ones with direct I/O. `next` takes a buffer and its filled length, and
/// returns another one.
fn read(
    files: &[PieceFile],
    mut buffer: AlignedBuffer,
    next: &mut dyn FnMut(AlignedBuffer, usize) -> Result<AlignedBuffer, TransferError>,
) -> Result<(), TransferError> {
    let unreadable = StagingError::io("read a file");
    for piece in files {
        let mut file = open_piece(piece)?;
        let mut direct = piece.direct && direct_io::set(&file, true).map_err(unreadable)?;
        if !direct {
            announce_sequential(&file);
        }
        let mut left = piece.size;
        while left > 0 {
            // A whole buffer even at the end, because its length must be aligned.
            let read = match file.read(buffer.as_mut_slice()) {
                Ok(0) => Err(StagingError::Gone),
                Ok(read) => Ok(read),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if direct && error.kind() == io::ErrorKind::InvalidInput => {
                    direct = false;
                    direct_io::set(&file, false).map_err(unreadable)?;
                    continue;
                }
                Err(error) => Err(unreadable(error)),
            }?;
            let read = usize::try_from(left).map_or(read, |left| left.min(read));
            left -= read as u64;
            buffer = next(buffer, read)?;
        }
    }
    Ok(())
}
