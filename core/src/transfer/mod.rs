//! Transfers from staging to storage in one pass: bytes are read, hashed and sent.
//!
//! Safe to repeat at any point: the key belongs to the file in the database, and the results of an earlier run are
//! recognized. Staging is never modified; it is cleared after the commit. A crash leaves either no object (a temporary
//! file or an open multipart upload, which the sweep removes) or the complete one, which the next run finds.
//!
//! A transfer uses at most 48 MiB of memory, whatever its size.

mod error;
mod fs;
mod part_reader;
mod s3_copy;
mod s3_streamed;
mod s3_upload;
mod streamed;

pub use crate::staging::Piece;
use crate::{
    digest::Sha256Digest,
    staging::{Staging, StagingBackend},
    storage::{
        Storage, StorageError, StorageKey,
        fs::FsStorage,
        s3::{PutProof, S3Storage},
    },
};
pub use error::TransferError;

/// The pieces to be stored, and the object they become.
#[derive(Clone, Copy, Debug)]
pub struct TransferRequest<'a> {
    /// In order, at least one.
    pub pieces: &'a [Piece],
    /// The key reserved for this file in the database.
    pub key: &'a StorageKey,
    /// A complete media type.
    pub content_type: &'a str,
    /// The SHA-256 declared by the client.
    pub expected: Option<Sha256Digest>,
    /// The SHA-256 computed when the bytes were received, if known.
    pub known: Option<Sha256Digest>,
    /// Read and hash the bytes even if `known` would do.
    pub rehash: bool,
    /// Replace an object of another file at the key (`storage.s3.file_overwrite`).
    pub overwrite: bool,
}

/// An object in storage, durable and verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredObject {
    /// In bytes.
    pub size: u64,
    pub sha256: Sha256Digest,
}

impl TransferRequest<'_> {
    /// Names the staging that the object comes from, so that it is recognized after a crash.
    fn origin(&self) -> String {
        self.pieces
            .first()
            .map_or_else(String::new, |piece| piece.key.to_string())
    }

    /// Size of the whole object, in bytes.
    fn size(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.size).sum()
    }

    /// Returns the digest, if the bytes need not be read to compute it.
    fn trusted(&self) -> Option<Sha256Digest> {
        self.known.filter(|_| !self.rehash)
    }

    /// Rejects bytes that differ from the declared or the received ones.
    fn check(&self, found: Sha256Digest) -> Result<(), TransferError> {
        check_digest(found, self.expected, self.known)
    }
}

fn check_digest(
    found: Sha256Digest,
    expected: Option<Sha256Digest>,
    known: Option<Sha256Digest>,
) -> Result<(), TransferError> {
    for expected in [expected, known].into_iter().flatten() {
        if expected != found {
            return Err(TransferError::DigestMismatch { expected, found });
        }
    }
    Ok(())
}

/// Transfers staged bytes into storage, and verifies the object.
///
/// # Errors
/// [`TransferError`]. The object then either does not exist or is complete; anything else left behind is known to the
/// sweep.
pub async fn transfer(
    staging: &Staging,
    storage: &Storage,
    request: &TransferRequest<'_>,
) -> Result<StoredObject, TransferError> {
    let size = request.size();
    let sha256 = if let StagingBackend::Fs(from) = &staging.backend
        && let Some(to) = storage.downcast::<FsStorage>()
    {
        if let Some(sha256) = fs::link(from, &to, request).await? {
            return Ok(StoredObject { size, sha256 });
        }
        fs::copy(from, &to, request).await?
    } else if let Some(to) = storage.downcast::<S3Storage>() {
        let (sha256, proof) = Box::pin(s3_upload::send(staging, &to, request)).await?;
        if proof == PutProof::Checksum {
            return Ok(StoredObject { size, sha256 });
        }
        sha256
    } else {
        streamed::send(staging, storage, request).await?
    };
    let object = StoredObject { size, sha256 };
    verify(storage, request.key, object).await?;
    Ok(object)
}

/// Returns the first bytes of all pieces together: `most` of them, or fewer if there are no more.
///
/// # Errors
/// [`TransferError::StagingGone`], and errors of staging.
pub async fn head(
    staging: &Staging,
    pieces: &[Piece],
    most: u64,
) -> Result<Vec<u8>, TransferError> {
    let mut head = Vec::new();
    for piece in pieces {
        let wanted = piece.size.min(most - head.len() as u64);
        if wanted == 0 {
            continue;
        }
        head.extend_from_slice(&staging.head(piece, wanted).await?);
    }
    Ok(head)
}

async fn verify(
    storage: &Storage,
    key: &StorageKey,
    object: StoredObject,
) -> Result<(), TransferError> {
    let problem = match storage.head(key).await? {
        None => "it does not exist".to_owned(),
        Some(info) if info.size != object.size => format!("it has {} bytes", info.size),
        Some(info) if info.sha256.is_some_and(|there| there != object.sha256) => {
            "it has a different SHA-256".to_owned()
        }
        Some(_) => return Ok(()),
    };
    Err(StorageError::NotAsSent(problem).into())
}
