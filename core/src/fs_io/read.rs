//! Reads local files in pieces, on threads that may block.

use crate::{digest::Sha256Digest, fs_io::fsync::blocking};
use bytes::Bytes;
use futures::{Stream, stream};
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    num::NonZeroU64,
    ops::Range,
};

/// Size of a piece of a streamed file, in bytes.
const CHUNK: u64 = 256 * 1024;
/// Number of bytes read before they are hashed: few enough that they are still in the CPU caches.
pub(crate) const BLOCK: usize = 256 * 1024;

/// Streams the bytes of `range` in pieces of at most 256 KiB. A file that ends before the range does is an error.
pub(crate) fn stream_file(
    file: File,
    range: Range<u64>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let start = Some((file, range.start));
    stream::try_unfold(start, move |state| {
        let end = range.end;
        async move {
            let Some((mut file, position)) = state.filter(|(_, position)| *position < end) else {
                return Ok(None);
            };
            let first = position == range.start;
            blocking(move || {
                if first {
                    file.seek(SeekFrom::Start(position))?;
                }
                let wanted = CHUNK.min(end - position);
                let mut piece = Vec::new();
                fill(
                    &mut file,
                    &mut piece,
                    usize::try_from(wanted).unwrap_or(BLOCK),
                )?;
                Ok(Some((Bytes::from(piece), Some((file, position + wanted)))))
            })
            .await
        }
    })
}

/// Appends exactly `wanted` bytes of the file to `piece`.
pub(crate) fn fill(file: &mut File, piece: &mut Vec<u8>, wanted: usize) -> io::Result<()> {
    piece.reserve_exact(wanted);
    let found = file.take(wanted as u64).read_to_end(piece)?;
    if found < wanted {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// Hashes a file from its current position to its end, and returns the number of bytes.
pub(crate) fn hash_file(file: &mut File, hasher: &mut Sha256) -> io::Result<u64> {
    announce_sequential(file);
    let mut block = vec![0; BLOCK];
    let mut size = 0;
    loop {
        match file.read(&mut block) {
            Ok(0) => return Ok(size),
            Ok(read) => {
                hasher.update(&block[..read]);
                size += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Returns the digest and length of a whole file.
pub(crate) fn digest_file(file: &mut File) -> io::Result<(Sha256Digest, u64)> {
    let mut hasher = Sha256::new();
    let size = hash_file(file, &mut hasher)?;
    Ok((Sha256Digest::from_hasher(hasher), size))
}

/// Makes the kernel start writing a range, in bytes, to disk, so that the final sync finds little to do
/// (`posix_fadvise(2)`: dirty pages that will not be needed are written first). Does not wait, and guarantees nothing.
pub(crate) fn begin_writing(file: &File, from: u64, size: NonZeroU64) {
    let _ = rustix::fs::fadvise(file, from, Some(size), rustix::fs::Advice::DontNeed);
}

/// Lets the kernel read far ahead, so that the disk is busy while the processor hashes. Has no effect on file systems
/// without support.
pub(crate) fn announce_sequential(file: &File) {
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::Sequential);
}
