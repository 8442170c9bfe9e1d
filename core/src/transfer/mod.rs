//! From staging to storage in one pass: read, hashed, sent.
//!
//! Safe to be run again at any point: the key is the file's own in the database, and what an earlier run left under
//! it is known as such. Staging is never changed; it goes after the commit. What a crash leaves is either no object
//! (a temporary file, an open multipart upload: the sweep's), or the whole one, which the next run finds.
//!
//! Memory is at most 48 MiB for one transfer, whatever its size.

mod error;
mod fs;
mod part_reader;
mod s3_copy;
mod s3_streamed;
mod s3_upload;

pub use crate::staging::Piece;
use crate::{
    digest::Sha256Digest,
    staging::{Staging, StagingBackend, bucket_beside_folder},
    storage::{Storage, StorageBackend, StorageError, StorageKey},
};
pub use error::TransferError;

/// What is to become which object.
#[derive(Clone, Copy, Debug)]
pub struct TransferRequest<'a> {
    /// In their order. At least one.
    pub pieces: &'a [Piece],
    /// Reserved for this file in the database.
    pub key: &'a StorageKey,
    /// A whole media type.
    pub content_type: &'a str,
    /// What the client said the SHA-256 is.
    pub expected: Option<Sha256Digest>,
    /// What the SHA-256 was when the bytes came in, if that is known.
    pub known: Option<Sha256Digest>,
    /// Read the bytes to hash them even where `known` would do.
    pub rehash: bool,
    /// Replace what another file has put at the key (`storage.s3.file_overwrite`).
    pub overwrite: bool,
}

/// A file in storage, durable and verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredObject {
    /// In bytes.
    pub size: u64,
    pub sha256: Sha256Digest,
}

impl TransferRequest<'_> {
    /// Of the whole object, in bytes.
    fn size(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.size).sum()
    }

    /// The digest, where the bytes need not be read for it.
    fn trusted(&self) -> Option<Sha256Digest> {
        self.known.filter(|_| !self.rehash)
    }

    /// Refuses bytes the client did not announce, or that are not those that came in.
    fn check(&self, found: Sha256Digest) -> Result<(), TransferError> {
        for expected in [self.expected, self.known].into_iter().flatten() {
            if expected != found {
                return Err(TransferError::DigestMismatch { expected, found });
            }
        }
        Ok(())
    }
}

/// Brings staged bytes into storage, and looks whether they are there as they should be.
///
/// # Errors
/// [`TransferError`]; the object is not there then, or whole, and nothing else is unless the sweep knows of it.
pub async fn transfer(
    staging: &Staging,
    storage: &Storage,
    request: &TransferRequest<'_>,
) -> Result<StoredObject, TransferError> {
    let size = request.size();
    if let (StagingBackend::Fs(from), StorageBackend::Fs(to)) = (&staging.backend, &storage.backend)
        && let Some(sha256) = fs::link(from, to, request).await?
    {
        return Ok(StoredObject { size, sha256 });
    }
    let sha256 = match (&staging.backend, &storage.backend) {
        (StagingBackend::Fs(from), StorageBackend::Fs(to)) => fs::copy(from, to, request).await?,
        (_, StorageBackend::S3(to)) => Box::pin(s3_upload::send(staging, to, request)).await?,
        (StagingBackend::S3(_), StorageBackend::Fs(_)) => {
            // `Staging::open` refuses the pair; these two were not opened together.
            return Err(TransferError::Storage(bucket_beside_folder()));
        }
    };
    let object = StoredObject { size, sha256 };
    verify(storage, request.key, object).await?;
    Ok(object)
}

/// The first bytes of the pieces taken together, at most `most` of them; fewer when there are no more.
///
/// # Errors
/// [`TransferError::StagingGone`], and what staging answers.
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
        None => "it is not there".to_owned(),
        Some(info) if info.size != object.size => format!("it has {} bytes", info.size),
        Some(info) if info.sha256.is_some_and(|there| there != object.sha256) => {
            "it has another SHA-256".to_owned()
        }
        Some(_) => return Ok(()),
    };
    Err(StorageError::NotAsSent(problem).into())
}
