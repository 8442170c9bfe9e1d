//! Conditional writes: what protects keys of the bucket from being overwritten, in addition to the database.
//!
//! Objects are sent with `If-None-Match: *`, and a store that supports it responds with 412 when the key is taken. The
//! metadata of each object names the staging it came from, so that a run recognizes its own object from before a crash
//! or a lost response. A store that does not support the header responds with 501: the key is then checked first, and
//! only the database decides the remaining race. The startup check finds stores that silently ignore the header.

use super::{S3Storage, error};
use crate::{digest::Sha256Digest, storage::StorageError};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use std::error::Error;

/// The metadata key for the origin of an object (`x-amz-meta-landfall-origin`).
pub(super) const ORIGIN: &str = "landfall-origin";

/// An object to be put.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewObject<'a> {
    pub(crate) key: &'a str,
    pub(crate) content_type: &'a str,
    /// Distinguishes runs for this file from all others.
    pub(crate) origin: &'a str,
    /// In bytes.
    pub(crate) size: u64,
    /// If known already.
    pub(crate) sha256: Option<Sha256Digest>,
    /// Replace an existing object.
    pub(crate) overwrite: bool,
    /// Staged bytes, which are deleted soon. No other writer ever uses the key, so requests may be retried even if they
    /// replace an object.
    pub(crate) is_staged: bool,
}

/// The object found at a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExistingObject {
    Nothing,
    /// From an earlier run, and identical.
    Ours,
    /// From an earlier run, but different.
    OursOtherwise,
    Foreign,
}

impl S3Storage {
    /// Sends an object conditionally; `send` is told whether to set `If-None-Match`. Returns `None` if the object
    /// existed.
    pub(super) async fn put_conditionally<T, E, F>(
        &self,
        object: &NewObject<'_>,
        action: &'static str,
        send: impl Fn(bool) -> F,
    ) -> Result<Option<T>, StorageError>
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
        F: Future<Output = Result<T, SdkError<E>>>,
    {
        let conditional_writes = &self.capabilities.conditional_writes;
        let mut fence = !object.overwrite && conditional_writes.is_usable();
        if !fence && self.is_foreign(object).await? {
            return Err(StorageError::KeyTaken);
        }
        let mut outcome = send(fence).await;
        if fence && is_unknown(&outcome) {
            fence = false;
            conditional_writes.refuse();
            if self.is_foreign(object).await? {
                return Err(StorageError::KeyTaken);
            }
            outcome = send(fence).await;
        }
        let error = match outcome {
            Ok(answer) => return Ok(Some(answer)),
            Err(error) => error::map_error(action)(error),
        };
        // A request that may replace another writer's object must be answered to count, because it may be carried out
        // later.
        if object.overwrite || !may_be_there(&error) {
            return Err(error);
        }
        let taken = matches!(error, StorageError::KeyTaken);
        match self.inspect(object).await {
            Ok(ExistingObject::Ours) => Ok(None),
            Ok(ExistingObject::OursOtherwise) if fence && taken => {
                let again = send(false).await;
                again.map(Some).map_err(error::map_error(action))
            }
            // Nothing is there: a proxy responded, or the object has been deleted since.
            Ok(ExistingObject::Nothing) if taken => Err(StorageError::Refused {
                action,
                status: 412,
                code: String::new(),
                message: "no object is at the key".to_owned(),
            }),
            // The owner of the object must be determined again.
            Err(unknown) if taken => Err(unknown),
            _ => Err(error),
        }
    }

    async fn is_foreign(&self, object: &NewObject<'_>) -> Result<bool, StorageError> {
        Ok(!object.overwrite && self.inspect(object).await? == ExistingObject::Foreign)
    }

    async fn inspect(&self, object: &NewObject<'_>) -> Result<ExistingObject, StorageError> {
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

/// Whether the key is taken, perhaps by us, or the response was lost, so that the SDK's retry found the object of its
/// first attempt.
fn may_be_there(error: &StorageError) -> bool {
    match error {
        StorageError::KeyTaken | StorageError::NoAnswer { .. } => true,
        StorageError::Refused { status, code, .. } => *status >= 500 || code == "NoSuchUpload",
        _ => false,
    }
}
