//! Nobody overwrites anybody: what guards a key of the bucket, beside the database.
//!
//! Objects are sent with `If-None-Match: *`, which a store that knows it refuses with 412 when the key is taken. Each
//! object says in its metadata which staging it came from, so a run that finds its own object, of before a crash or
//! of an answer that was lost, knows it. A store that does not know the header answers 501: then the key is looked
//! at first, and the race that leaves is the database's to decide. Some stores ignore the header without a word.

use super::{S3Storage, error};
use crate::{digest::Sha256Digest, storage::StorageError};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use std::{error::Error, sync::atomic::Ordering};

/// The metadata that says where an object comes from (`x-amz-meta-landfall-origin`).
pub(super) const ORIGIN: &str = "landfall-origin";

/// An object that is about to be put.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewObject<'a> {
    pub(crate) key: &'a str,
    pub(crate) content_type: &'a str,
    /// Tells runs for one file from all others.
    pub(crate) origin: &'a str,
    /// In bytes.
    pub(crate) size: u64,
    /// Once it is known.
    pub(crate) sha256: Option<Sha256Digest>,
    /// Replaces whatever is there.
    pub(crate) overwrite: bool,
    /// No other writer ever has the key: a request for it may be repeated, even if it replaces what is there.
    pub(crate) sole_writer: bool,
}

/// What lies at a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExistingObject {
    Nothing,
    /// Of an earlier run, and it is what this one would put.
    Ours,
    /// Of an earlier run, and not the same.
    OursOtherwise,
    Foreign,
}

impl S3Storage {
    /// Sends an object under the fence: `send` is told whether to put up `If-None-Match`. None: the object was there.
    pub(super) async fn fenced<T, E, F>(
        &self,
        object: &NewObject<'_>,
        action: &'static str,
        send: impl Fn(bool) -> F,
    ) -> Result<Option<T>, StorageError>
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
        F: Future<Output = Result<T, SdkError<E>>>,
    {
        let mut fence = !object.overwrite && self.knows_fence.load(Ordering::Relaxed);
        if !fence && self.is_foreign(object).await? {
            return Err(StorageError::KeyTaken);
        }
        let mut outcome = send(fence).await;
        if fence && is_unknown(&outcome) {
            fence = false;
            if self.knows_fence.swap(false, Ordering::Relaxed) {
                tracing::warn!(
                    "the object store does not know If-None-Match; only the database guards keys"
                );
            }
            if self.is_foreign(object).await? {
                return Err(StorageError::KeyTaken);
            }
            outcome = send(fence).await;
        }
        let error = match outcome {
            Ok(answer) => return Ok(Some(answer)),
            Err(error) => error::sorted(action)(error),
        };
        // What may replace another's object counts only when it was answered: the request may be carried out later.
        if object.overwrite || !may_be_there(&error) {
            return Err(error);
        }
        let taken = matches!(error, StorageError::KeyTaken);
        match self.look(object).await {
            Ok(ExistingObject::Ours) => Ok(None),
            Ok(ExistingObject::OursOtherwise) if fence && taken => {
                let again = send(false).await;
                again.map(Some).map_err(error::sorted(action))
            }
            // Nothing is there: it was a proxy that answered, or the object has gone since.
            Ok(ExistingObject::Nothing) if taken => Err(StorageError::Refused {
                action,
                status: 412,
                code: String::new(),
                message: "no object is at the key".to_owned(),
            }),
            // Whose object it is has to be asked again.
            Err(unknown) if taken => Err(unknown),
            _ => Err(error),
        }
    }

    async fn is_foreign(&self, object: &NewObject<'_>) -> Result<bool, StorageError> {
        Ok(!object.overwrite && self.look(object).await? == ExistingObject::Foreign)
    }

    async fn look(&self, object: &NewObject<'_>) -> Result<ExistingObject, StorageError> {
        let Some((info, origin)) = self.head_key(object.key).await? else {
            return Ok(ExistingObject::Nothing);
        };
        if origin.as_deref() != Some(object.origin) {
            return Ok(ExistingObject::Foreign);
        }
        let other_digest = match (info.sha256, object.sha256) {
            (Some(there), Some(here)) => there != here,
            _ => false,
        };
        if info.size != object.size || other_digest {
            return Ok(ExistingObject::OursOtherwise);
        }
        Ok(ExistingObject::Ours)
    }
}

fn is_unknown<T, E: ProvideErrorMetadata>(outcome: &Result<T, SdkError<E>>) -> bool {
    outcome
        .as_ref()
        .err()
        .and_then(error::answer)
        .is_some_and(|answer| error::is_unknown(&answer))
}

/// The key is taken, perhaps by us; or the answer was lost, and the SDK's next attempt found its own work done.
fn may_be_there(error: &StorageError) -> bool {
    match error {
        StorageError::KeyTaken | StorageError::NoAnswer { .. } => true,
        StorageError::Refused { status, code, .. } => *status >= 500 || code == "NoSuchUpload",
        _ => false,
    }
}
