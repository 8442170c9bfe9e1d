//! Storage in a bucket of any S3-compatible store.
//!
//! Guarantees: an object appears atomically, by one PUT or the completion of a multipart upload; a multipart upload
//! that fails is aborted. Every request has a timeout and at most three attempts, and a stalled body is aborted.
//! Digests are sent with the bytes and compared with the response.
//!
//! Configuration: the settings of `storage.s3`, eight of them also by their `AWS_…` names; without a key pair the AWS
//! default credential chain.
//!
//! Implementation: the AWS SDK. The bucket is named in the path or in the host ([`addressing`]). Objects of up to 16 MiB are one PUT
//! with its SHA-256; larger ones are multipart uploads with a few parts of 8 MiB in flight.
//!
//! Considerations: what a store does not support is found out, logged once and no longer used ([`capabilities`]). On unencrypted connections each part is signed by its digest; with TLS the connection
//! protects them.

mod addressing;
mod capabilities;
mod client;
mod conditional_put;
mod credentials;
mod error;
mod marker;
mod memory_budget;
mod multipart;
mod object_options;
mod payload;
mod probe;
mod put;
mod stale_multipart;
mod store;
mod url;

use crate::{
    config::{S3Settings, StorageConfig},
    digest::Sha256Digest,
    installation::marker::BucketMarker,
    storage::{
        ListedObject, ObjectInfo, ObjectPages, ObjectStream, PAGE, StorageError, StorageKey,
    },
};
use addressing::AddressedClients;
use aws_sdk_s3::{
    Client,
    config::{Builder, retry::RetryConfig},
    operation::{get_object::GetObjectError, head_object::HeadObjectOutput},
    primitives::DateTime as SdkDateTime,
    types::{ChecksumMode, ChecksumType},
};
use base64::{Engine, prelude::BASE64_STANDARD};
pub(crate) use capabilities::Capabilities;
use chrono::{DateTime, Utc};
pub use client::S3Timeouts;
pub(crate) use conditional_put::NewObject;
use credentials::StoreCredentials;
use futures::{StreamExt, stream};
use memory_budget::TransferMemory;
pub(crate) use multipart::{MIN_PART_SIZE, MultipartUpload};
pub(crate) use put::PutProof;
use std::{ops::Range, sync::Arc};

/// See the module documentation.
#[derive(Debug)]
pub(crate) struct S3Storage {
    clients: AddressedClients,
    credentials: StoreCredentials,
    settings: S3Settings,
    /// What every key in the bucket begins with, including a slash at its end; empty without `storage.prefix`.
    prefix: String,
    pace: S3Timeouts,
    pub(crate) capabilities: Capabilities,
    pub(crate) marker: BucketMarker,
    memory: TransferMemory,
}

impl S3Storage {
    pub(crate) fn open(config: &StorageConfig, pace: S3Timeouts) -> Self {
        let prefix = match config.prefix.as_str() {
            "" => String::new(),
            folder => format!("{folder}/"),
        };
        let connections = client::connections();
        let credentials = StoreCredentials::new(&config.s3, connections.clone());
        Self {
            clients: AddressedClients::new(&config.s3, pace, connections, credentials.clone()),
            credentials,
            settings: config.s3.clone(),
            prefix,
            pace,
            capabilities: Capabilities::default(),
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

    async fn client(&self) -> &Client {
        self.clients.client().await
    }

    /// The key in the bucket of one of Landfall's own keys.
    fn full_key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Whether parts need their own digest, because nothing else protects them in transit.
    pub(crate) fn signs_parts(&self) -> bool {
        let endpoint = self.settings.endpoint_url.as_ref();
        endpoint.is_some_and(|url| url.scheme() != "https")
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
            .client()
            .await
            .head_object()
            .bucket(self.bucket())
            .key(self.full_key(key))
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
            .client()
            .await
            .get_object()
            .bucket(self.bucket())
            .key(self.full_key(key))
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
        let request = self.client().await.delete_object().bucket(self.bucket());
        let deleted = request
            .key(self.full_key(key.as_str()))
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
        let request = self.client().await.delete_object().bucket(self.bucket());
        match request
            .key(self.full_key(key))
            .send()
            .await
            .map_err(error::map_error("delete an object"))
        {
            Ok(_) | Err(StorageError::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn list(self: &Arc<Self>, prefix: &str) -> ObjectPages {
        self.list_after(prefix.to_owned(), None)
    }

    /// Lists the objects after `after`, in byte order of their keys.
    pub(crate) fn list_after(
        self: &Arc<Self>,
        prefix: String,
        after: Option<String>,
    ) -> ObjectPages {
        let storage = Arc::clone(self);
        let pages = stream::try_unfold(ListPosition::Start(after), move |position| {
            let (storage, prefix) = (Arc::clone(&storage), storage.full_key(&prefix));
            async move {
                let (after, token) = match position {
                    ListPosition::Start(after) => (after, None),
                    ListPosition::Page(token) => (None, Some(token)),
                    ListPosition::End => return Ok(None),
                };
                let answer = storage
                    .client()
                    .await
                    .list_objects_v2()
                    .bucket(storage.bucket())
                    .prefix(prefix)
                    .set_start_after(after.map(|after| storage.full_key(&after)))
                    .set_continuation_token(token)
                    .max_keys(i32::try_from(PAGE).unwrap_or(i32::MAX))
                    .send()
                    .await
                    .map_err(error::map_error("list objects"))?;
                let listed = |object| listed(object, &storage.prefix);
                let page = answer.contents().iter().filter_map(listed).collect();
                let more = answer.is_truncated().unwrap_or(false);
                let token = answer.next_continuation_token().filter(|_| more);
                let next = token.map_or(ListPosition::End, |token| {
                    ListPosition::Page(token.to_owned())
                });
                Ok(Some((page, next)))
            }
        });
        pages.boxed()
    }

    pub(crate) async fn health(&self) -> Result<(), StorageError> {
        let request = self.client().await.head_bucket().bucket(self.bucket());
        request
            .send()
            .await
            .map(drop)
            .map_err(error::map_error("pass a health check"))
    }
}

fn once(config: Builder) -> Builder {
    config.retry_config(RetryConfig::disabled())
}

/// The next page of a list.
enum ListPosition {
    /// After this key.
    Start(Option<String>),
    /// By its token.
    Page(String),
    End,
}

fn listed(object: &aws_sdk_s3::types::Object, prefix: &str) -> Option<ListedObject> {
    Some(ListedObject {
        key: object.key()?.strip_prefix(prefix)?.to_owned(),
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
