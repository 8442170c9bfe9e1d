//! The installation's marker in the bucket.

use super::{NewObject, S3Storage};
use crate::{
    digest::Sha256Digest,
    installation::{Marker, marker},
    storage::StorageError,
};
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use uuid::Uuid;

impl S3Storage {
    /// Fails if the bucket must have a marker that has not been seen yet.
    pub(super) async fn require_marker(&self) -> Result<(), StorageError> {
        let Some(expected) = self.marker.unseen() else {
            return Ok(());
        };
        let found = self.read_marker().await?;
        marker::compare(found.as_ref(), expected).map_err(StorageError::Marker)
    }

    /// Reads the marker, and remembers whether it is the expected one.
    pub(crate) async fn read_marker(&self) -> Result<Option<Marker>, StorageError> {
        let bytes = match self
            .read_key(marker::OBJECT, Some(0..marker::MAX_LEN))
            .await
        {
            Err(StorageError::NotFound) => {
                self.marker.record_result(None);
                return Ok(None);
            }
            bytes => bytes?.try_collect::<BytesMut>().await?,
        };
        let found = Marker::parse(&bytes);
        self.marker.record_result(Some(&found));
        Ok(Some(found))
    }

    pub(crate) async fn write_marker(
        &self,
        installation: Uuid,
        replace: bool,
    ) -> Result<bool, StorageError> {
        let contents = Bytes::from(marker::contents(installation));
        let object = NewObject {
            key: marker::OBJECT,
            content_type: "text/plain",
            origin: &installation.to_string(),
            size: contents.len() as u64,
            sha256: Some(Sha256Digest::compute(&contents)),
            overwrite: replace,
            is_staged: false,
        };
        match self.put_unmarked(&object, contents).await {
            Ok(_) => Ok(true),
            Err(StorageError::KeyTaken) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
