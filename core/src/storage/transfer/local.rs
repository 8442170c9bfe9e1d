//! From a folder to a folder: hashed, then linked; copied where no link is possible.

use super::{
    Landing, Piece, TransferError,
    parts::{Abandon, PieceFile, open_piece},
};
use crate::{
    digest::Sha256Digest,
    staging::{StagingError, fs::FsStaging},
    storage::{
        StorageError,
        file::{BLOCK, announce_sequential},
        fs::{FsStorage, Linked, Temporary},
    },
};
use sha2::{Digest, Sha256};
use std::{
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
};

/// Links the only piece, and looks at it in its new place. None when there are several, or no link is possible.
pub(super) async fn link(
    from: &FsStaging,
    to: &FsStorage,
    landing: &Landing<'_>,
) -> Result<Option<Sha256Digest>, TransferError> {
    let [only] = landing.pieces else {
        return Ok(None);
    };
    let file = PieceFile::of(from, only);
    let digest = match landing.trusted() {
        Some(known) => known,
        // It would be read twice, by the copy again.
        None if file.clone().device().await? != to.device().await? => return Ok(None),
        None => pass(vec![file.clone()], None).await?.0,
    };
    landing.check(digest)?;
    let (path, content) = (file.path.clone(), (digest, landing.size()));
    let check = move || open_piece(&file).map(drop);
    let linked = to.link_if(path, landing.key, content, landing.overwrite, check);
    Ok((linked.await? != Linked::Impossible).then_some(digest))
}

pub(super) async fn copy(
    from: &FsStaging,
    to: &FsStorage,
    landing: &Landing<'_>,
) -> Result<Sha256Digest, TransferError> {
    let pieces = landing.pieces.iter();
    let files = pieces.map(|piece| PieceFile::of(from, piece)).collect();
    let temporary = to.temporary().await?;
    let (digest, temporary) = pass(files, Some(temporary)).await?;
    landing.check(digest)?;
    if let Some(temporary) = temporary {
        let content = (digest, landing.size());
        to.publish(temporary, landing.key, content, landing.overwrite)
            .await?;
    }
    Ok(digest)
}

impl PieceFile {
    fn of(from: &FsStaging, piece: &Piece) -> Self {
        Self {
            path: from.path(piece.key),
            size: piece.size,
        }
    }

    async fn device(self) -> Result<u64, TransferError> {
        let looked = crate::storage::durable::blocking(move || std::fs::metadata(&self.path));
        let metadata = looked.await.map_err(StagingError::io("look for a file"))?;
        Ok(metadata.dev())
    }
}

/// Hashes all files in one go, on a thread of its own, and copies them on the way if there is something to copy to.
async fn pass(
    files: Vec<PieceFile>,
    mut copy: Option<Temporary>,
) -> Result<(Sha256Digest, Option<Temporary>), TransferError> {
    let (abandon, abandoned) = Abandon::pair();
    let work = tokio::task::spawn_blocking(move || {
        let mut hasher = Sha256::new();
        let mut block = vec![0; BLOCK];
        for piece in &files {
            let mut file = open_piece(piece)?;
            announce_sequential(&file);
            let mut left = piece.size;
            while left > 0 {
                abandoned.check()?;
                let wanted = usize::try_from(left).map_or(BLOCK, |left| left.min(BLOCK));
                let read = match file.read(&mut block[..wanted]) {
                    Ok(0) => Err(StagingError::Gone),
                    Ok(read) => Ok(read),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(StagingError::io("read a file")(error)),
                }?;
                hasher.update(&block[..read]);
                if let Some(copy) = &mut copy {
                    let written = copy.file.write_all(&block[..read]);
                    written.map_err(StorageError::io("write a file"))?;
                }
                left -= read as u64;
            }
        }
        Ok((Sha256Digest::from_hasher(hasher), copy))
    });
    let done = work.await;
    drop(abandon);
    done.map_err(|lost| StagingError::io("be read")(io::Error::other(lost)))?
}
