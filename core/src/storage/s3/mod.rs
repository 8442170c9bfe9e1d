//! Storage in a bucket of any S3-compatible store.
//!
//! Guarantees: an object appears atomically, by one PUT or the completion of a multipart upload; a multipart upload
//! that fails is aborted. Every request has a timeout and at most three attempts, and a stalled body is aborted.
//! Digests are sent with the bytes and compared with the response.
//!
//! Configuration: the eight settings of `storage.s3`, also by their `AWS_…` names.
//!
//! Implementation: the AWS SDK, with path-style addressing if an endpoint is set. Objects of up to 16 MiB are one PUT
//! with its SHA-256; larger ones are multipart uploads with a few parts of 8 MiB in flight.
//!
//! Considerations: features that a store answers with 501 (conditional writes, listing multipart uploads) are logged
//! once and no longer used. On unencrypted connections each part is signed by its digest; with TLS the connection
//! protects them.

mod client;
mod conditional_put;
mod error;
mod marker;
mod memory_budget;
mod multipart;
mod payload;
pub(crate) mod probe;
mod stale_multipart;
mod store;
mod url;

use crate::{
    config::S3Settings,
    digest::Sha256Digest,
    installation::marker::BucketMarker,
    storage::{
        ListedObject, ObjectInfo, ObjectPages, ObjectStream, PAGE, StorageError, StorageKey,
    },
};
use aws_sdk_s3::{
    Client,
    config::{Builder, retry::RetryConfig},
    operation::{
        get_object::GetObjectError, head_object::HeadObjectOutput, put_object::PutObjectOutput,
    },
    primitives::{ByteStream, DateTime as SdkDateTime},
    types::{ChecksumMode, ChecksumType},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use chrono::{DateTime, Utc};
pub use client::S3Timeouts;
pub(crate) use conditional_put::NewObject;
use futures::{StreamExt, stream};
use memory_budget::TransferMemory;
pub(crate) use multipart::{MIN_PART_SIZE, MultipartUpload};
use payload::SignWithDigest;
use std::{ops::Range, sync::atomic::AtomicBool};

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct S3Storage {
    client: Client,
    settings: S3Settings,
    pace: S3Timeouts,
    /// False once the store has responded that it does not support `If-None-Match`.
    knows_fence: AtomicBool,
    /// False once the store has responded that it cannot list multipart uploads.
    lists_uploads: AtomicBool,
    pub(crate) marker: BucketMarker,
    memory: TransferMemory,
}

impl S3Storage {
    pub(crate) fn open(settings: &S3Settings, pace: S3Timeouts) -> Self {
        Self {
            client: client::client(settings, pace),
            settings: settings.clone(),
            pace,
            knows_fence: AtomicBool::new(true),
            lists_uploads: AtomicBool::new(true),
            marker: BucketMarker::default(),
            memory: TransferMemory::default(),
        }
    }

    /// The memory budget of this process's transfers.
    pub(crate) fn memory(&self) -> &TransferMemory {
        &self.memory
    }

    fn bucket(&self) -> &str {
        &self.settings.bucket_name
    }

    /// Whether parts need their own digest, because nothing else protects them in transit.
    pub(crate) fn signs_parts(&self) -> bool {
        let endpoint = self.settings.endpoint_url.as_ref();
        endpoint.is_some_and(|url| url.scheme() != "https")
    }

    /// Puts an object in one request; its digest must be known.
    pub(crate) async fn put_object(
        &self,
        object: &NewObject<'_>,
        bytes: Bytes,
    ) -> Result<(), StorageError> {
        self.require_marker().await?;
        self.put_unmarked(object, bytes).await
    }

    /// [`Self::put_object`] into a bucket whose marker need not exist yet.
    async fn put_unmarked(&self, object: &NewObject<'_>, bytes: Bytes) -> Result<(), StorageError> {
        let digest = object
            .sha256
            .unwrap_or_else(|| Sha256Digest::compute(&bytes));
        let sent = self.put_conditionally(object, "put an object", |fence| {
            self.client
                .put_object()
                .bucket(self.bucket())
                .key(object.key)
                .content_type(object.content_type)
                .metadata(conditional_put::ORIGIN, object.origin)
                .checksum_sha256(BASE64_STANDARD.encode(digest.0))
                .set_if_none_match(fence.then(|| "*".to_owned()))
                .body(ByteStream::from(bytes.clone()))
                .customize()
                .interceptor(SignWithDigest(digest))
                .config_override(attempts(object, self.pace.for_body(object.size)))
                .send()
        });
        match sent
            .await?
            .as_ref()
            .and_then(PutObjectOutput::checksum_sha256)
        {
            Some(answered) if answered != BASE64_STANDARD.encode(digest.0) => Err(
                StorageError::NotAsSent("the store answers another SHA-256".to_owned()),
            ),
            _ => Ok(()),
        }
    }

    pub(crate) async fn head(&self, key: &StorageKey) -> Result<Option<ObjectInfo>, StorageError> {
        let found = self.head_key(key.as_str()).await?;
        Ok(found.map(|(info, _)| info))
    }

    /// Returns the metadata of an object, and the origin it names.
    async fn head_key(
        &self,
        key: &str,
    ) -> Result<Option<(ObjectInfo, Option<String>)>, StorageError> {
        let answer = self
            .client
            .head_object()
            .bucket(self.bucket())
            .key(key)
            .checksum_mode(ChecksumMode::Enabled)
            .send()
            .await;
        match answer.map_err(error::map_head_error("check for an object")) {
            Ok(found) => {
                let origin = found
                    .metadata()
                    .and_then(|all| all.get(conditional_put::ORIGIN));
                Ok(Some((info(&found), origin.cloned())))
            }
            Err(StorageError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the origin that an object names; `None` if it names none, or does not exist.
    pub(crate) async fn origin(&self, key: &StorageKey) -> Result<Option<String>, StorageError> {
        let found = self.head_key(key.as_str()).await?;
        Ok(found.and_then(|(_, origin)| origin))
    }

    pub(crate) async fn read(
        &self,
        key: &StorageKey,
        range: Option<Range<u64>>,
    ) -> Result<ObjectStream, StorageError> {
        self.read_key(key.as_str(), range).await
    }

    pub(crate) async fn read_key(
        &self,
        key: &str,
        range: Option<Range<u64>>,
    ) -> Result<ObjectStream, StorageError> {
        if range.as_ref().is_some_and(Range::is_empty) {
            return Ok(stream::empty().boxed());
        }
        let range = range.map(|range| format!("bytes={}-{}", range.start, range.end - 1));
        let answer = self
            .client
            .get_object()
            .bucket(self.bucket())
            .key(key)
            .set_range(range)
            .send()
            .await;
        let answer = match answer {
            // The range starts at or beyond the end.
            Err(error) if error::answer(&error).is_some_and(|answer| answer.status == 416) => {
                return Ok(stream::empty().boxed());
            }
            other => other.map_err(error::map_error::<GetObjectError>("read an object"))?,
        };
        let patience = self.pace.stall;
        let bytes = stream::try_unfold(answer.body, move |mut body| async move {
            let next = tokio::time::timeout(patience, body.next()).await;
            match next {
                Ok(Some(Ok(bytes))) => Ok(Some((bytes, body))),
                Ok(None) => Ok(None),
                Ok(Some(Err(error))) => Err(interrupted(error.into())),
                Err(late) => Err(interrupted(late.into())),
            }
        });
        Ok(bytes.boxed())
    }

    pub(crate) async fn delete(&self, key: &StorageKey) -> Result<(), StorageError> {
        self.delete_key(key.as_str()).await
    }

    pub(crate) async fn delete_once(&self, key: &StorageKey) -> Result<(), StorageError> {
        let request = self.client.delete_object().bucket(self.bucket());
        let deleted = request
            .key(key.as_str())
            .customize()
            .config_override(once(self.pace.for_body(0)))
            .send()
            .await;
        match deleted.map_err(error::map_error("delete an object")) {
            Ok(_) | Err(StorageError::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn delete_key(&self, key: &str) -> Result<(), StorageError> {
        self.require_marker().await?;
        let request = self.client.delete_object().bucket(self.bucket()).key(key);
        match request
            .send()
            .await
            .map_err(error::map_error("delete an object"))
        {
            Ok(_) | Err(StorageError::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn list(self: &std::sync::Arc<Self>, prefix: &str) -> ObjectPages {
        self.list_after(prefix.to_owned(), None)
    }

    /// Lists the objects after `after`, in byte order of their keys.
    pub(crate) fn list_after(
        self: &std::sync::Arc<Self>,
        prefix: String,
        after: Option<String>,
    ) -> ObjectPages {
        let request = self
            .client
            .list_objects_v2()
            .bucket(self.bucket())
            .prefix(prefix)
            .set_start_after(after)
            .max_keys(i32::try_from(PAGE).unwrap_or(i32::MAX));
        let pages = stream::try_unfold(Some(request), |request| async move {
            let Some(request) = request else {
                return Ok(None);
            };
            let answer = request.clone().send().await;
            let answer = answer.map_err(error::map_error("list objects"))?;
            let page = answer.contents().iter().filter_map(listed).collect();
            let more = answer.is_truncated().unwrap_or(false);
            let token = answer.next_continuation_token().filter(|_| more);
            let next = token.map(|token| request.continuation_token(token));
            Ok(Some((page, next)))
        });
        pages.boxed()
    }

    pub(crate) async fn health(&self) -> Result<(), StorageError> {
        let request = self.client.head_bucket().bucket(self.bucket());
        request
            .send()
            .await
            .map(drop)
            .map_err(error::map_error("pass a health check"))
    }
}

/// An object that may replace another writer's is sent once: the response to a retry proves nothing about the first
/// attempt.
pub(super) fn attempts(object: &NewObject<'_>, config: Builder) -> Builder {
    match object.overwrite && !object.sole_writer {
        true => once(config),
        false => config,
    }
}

fn once(config: Builder) -> Builder {
    config.retry_config(RetryConfig::disabled())
}

fn listed(object: &aws_sdk_s3::types::Object) -> Option<ListedObject> {
    Some(ListedObject {
        key: object.key()?.to_owned(),
        size: u64::try_from(object.size().unwrap_or(0)).unwrap_or(0),
        etag: object.e_tag().map(str::to_owned),
        modified: moment(object.last_modified()),
    })
}

fn info(found: &HeadObjectOutput) -> ObjectInfo {
    // For a multipart upload the store may keep a digest of the digests of its parts.
    let whole = found.checksum_type() != Some(&ChecksumType::Composite);
    let sha256 = found.checksum_sha256().filter(|_| whole);
    let sha256 = sha256.and_then(|text| BASE64_STANDARD.decode(text).ok());
    ObjectInfo {
        size: u64::try_from(found.content_length().unwrap_or(0)).unwrap_or(0),
        etag: found.e_tag().map(str::to_owned),
        sha256: sha256.and_then(|bytes| bytes.try_into().ok().map(Sha256Digest)),
        modified: moment(found.last_modified()),
    }
}

fn moment(time: Option<&SdkDateTime>) -> DateTime<Utc> {
    time.and_then(|time| DateTime::from_timestamp(time.secs(), time.subsec_nanos()))
        .unwrap_or(DateTime::UNIX_EPOCH)
}

fn interrupted(source: Box<dyn std::error::Error + Send + Sync>) -> StorageError {
    StorageError::NoAnswer {
        action: "send on the bytes of an object",
        source,
    }
}
