//! Transfers to a store without a path of its own: the bytes are hashed on their way into one stream.

use super::{
    TransferError, TransferRequest,
    part_reader::{PartBytes, PartReader},
};
use crate::{
    digest::Sha256Digest,
    staging::Staging,
    storage::{PutRequest, Storage, StorageError},
};
use futures::{StreamExt, stream};
use tokio::sync::oneshot;

/// How many bytes are read at a time.
const READ_SIZE: u64 = 1024 * 1024;

/// Sends the pieces, and returns the digest of all bytes. The stream ends with an error, so that no object appears, if
/// they cannot be read or are not those that were declared.
pub(super) async fn send(
    staging: &Staging,
    to: &Storage,
    request: &TransferRequest<'_>,
) -> Result<Sha256Digest, TransferError> {
    for piece in request.pieces {
        // For an empty object, no read would reveal that it is missing.
        if staging.len(piece.key).await?.is_none() {
            return Err(TransferError::StagingGone);
        }
    }
    let origin = request.origin();
    let put = PutRequest {
        key: request.key,
        content_type: request.content_type,
        origin: &origin,
        size: request.size(),
        overwrite: request.overwrite,
    };
    let (report, outcome) = oneshot::channel();
    let parts = PartReader::read(staging, request.pieces, READ_SIZE, false);
    let (expected, known) = (request.expected, request.known);
    let bytes = stream::unfold(Some((parts, report)), move |state| async move {
        let (mut parts, report) = state?;
        if let Some(PartBytes { bytes, .. }) = parts.next().await {
            return Some((Ok(bytes), Some((parts, report))));
        }
        let digest = parts.finish().await.and_then(|found| {
            super::check_digest(found, expected, known)?;
            Ok(found)
        });
        let failed = digest.is_err();
        // The receiver is gone if the transfer was dropped.
        let _ = report.send(digest);
        failed.then(|| {
            let problem = "its bytes could not be sent".to_owned();
            (Err(StorageError::NotAsSent(problem)), None)
        })
    });
    let stored = to.put(put, bytes.boxed()).await;
    match (outcome.await, stored) {
        (Ok(Err(error)), _) => Err(error),
        (_, Err(error)) => Err(error.into()),
        (Ok(digest), Ok(())) => digest,
        // A store that returns before the end of the stream has not stored all of it.
        (Err(_), Ok(())) => {
            Err(StorageError::NotAsSent("it was not read to its end".to_owned()).into())
        }
    }
}
