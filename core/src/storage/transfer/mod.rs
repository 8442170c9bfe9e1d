//! From staging to storage in one pass: read, hashed, sent.
//!
//! Safe to be run again at any point: the key is the file's own in the database, and what an earlier run left under
//! it is known as such. Staging is never changed; it goes after the commit. What a crash leaves is either no object
//! (a temporary file, an open multipart upload: the sweep's), or the whole one, which the next run finds.
//!
//! Memory is at most 48 MiB for one transfer, whatever its size.

mod error;
mod inside;
mod large;
mod local;
mod parts;
mod remote;

pub use crate::staging::Piece;
use crate::{
    digest::Sha256Digest,
    staging::{Place as StagingPlace, Staging, bucket_beside_folder},
    storage::{Place, Storage, StorageError, StorageKey},
};
pub use error::TransferError;

/// What is to become which object.
#[derive(Clone, Copy, Debug)]
pub struct Landing<'a> {
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
pub struct Landed {
    /// In bytes.
    pub size: u64,
    pub sha256: Sha256Digest,
}

impl Landing<'_> {
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
pub async fn land(
    staging: &Staging,
    storage: &Storage,
    landing: &Landing<'_>,
) -> Result<Landed, TransferError> {
    let size = landing.size();
    if let (StagingPlace::Fs(from), Place::Fs(to)) = (&staging.place, &storage.place)
        && let Some(sha256) = local::link(from, to, landing).await?
    {
        return Ok(Landed { size, sha256 });
    }
    let sha256 = match (&staging.place, &storage.place) {
        (StagingPlace::Fs(from), Place::Fs(to)) => local::copy(from, to, landing).await?,
        (_, Place::S3(to)) => Box::pin(remote::send(staging, to, landing)).await?,
        (StagingPlace::S3(_), Place::Fs(_)) => {
            // `Staging::open` refuses the pair; these two were not opened together.
            return Err(TransferError::Storage(bucket_beside_folder()));
        }
    };
    let landed = Landed { size, sha256 };
    verify(storage, landing.key, landed).await?;
    Ok(landed)
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

async fn verify(storage: &Storage, key: &StorageKey, landed: Landed) -> Result<(), TransferError> {
    let problem = match storage.head(key).await? {
        None => "it is not there".to_owned(),
        Some(info) if info.size != landed.size => format!("it has {} bytes", info.size),
        Some(info) if info.sha256.is_some_and(|there| there != landed.sha256) => {
            "it has another SHA-256".to_owned()
        }
        Some(_) => return Ok(()),
    };
    Err(StorageError::NotAsSent(problem).into())
}
