//! Multipart uploads.
//!
//! A multipart upload is either completed or aborted; if its future is dropped, it is aborted in the background. A
//! crash leaves it open, without an object, and the sweep aborts it.

use super::{
    Capabilities, NewObject, S3Storage, conditional_put, error,
    payload::SignWithDigest,
    put::{attempts, content_md5},
    url::encoded,
};
use crate::{digest::Sha256Digest, storage::StorageError};
use aws_sdk_s3::{
    operation::upload_part_copy::UploadPartCopyOutput,
    primitives::ByteStream,
    types::{CompletedMultipartUpload, CompletedPart, ServerSideEncryption},
};
use bytes::Bytes;
use std::{ops::Range, sync::Arc};

/// Minimum size of a part other than the last, in bytes. Source: "Amazon S3 multipart upload limits".
pub(crate) const MIN_PART_SIZE: u64 = 5 * 1024 * 1024;

/// An open multipart upload.
#[derive(Debug)]
pub(crate) struct MultipartUpload {
    storage: Arc<S3Storage>,
    /// In the bucket.
    key: String,
    id: String,
    closed: bool,
}

impl Drop for MultipartUpload {
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        // Without a runtime the process is exiting; the sweep aborts what stays open.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (storage, key, id) = (
                Arc::clone(&self.storage),
                std::mem::take(&mut self.key),
                std::mem::take(&mut self.id),
            );
            runtime.spawn(async move { storage.abort(&key, &id).await });
        }
    }
}

impl MultipartUpload {
    pub(crate) async fn begin(
        storage: &Arc<S3Storage>,
        object: &NewObject<'_>,
    ) -> Result<Self, StorageError> {
        storage.require_marker().await?;
        let key = storage.full_key(object.key);
        let answer = storage
            .client()
            .await
            .create_multipart_upload()
            .bucket(storage.bucket())
            .key(&key)
            .content_type(object.content_type)
            .metadata(conditional_put::ORIGIN, object.origin)
            .set_server_side_encryption(storage.settings.encryption())
            .set_ssekms_key_id(storage.settings.kms_key_id.clone())
            .set_storage_class(storage.settings.class_of(object))
            .send()
            .await
            .map_err(error::map_error("begin a multipart upload"))?;
        let id = answer.upload_id().ok_or_else(|| incomplete("upload id"))?;
        Ok(Self {
            storage: Arc::clone(storage),
            key,
            id: id.to_owned(),
            closed: false,
        })
    }

    /// What the store is known to support.
    pub(crate) fn capabilities(&self) -> &Capabilities {
        &self.storage.capabilities
    }

    /// Sends part `number` (from 1). With a digest the request is signed by it; otherwise the connection must protect
    /// it.
    pub(crate) async fn send(
        &self,
        number: i32,
        bytes: Bytes,
        digest: Option<Sha256Digest>,
    ) -> Result<CompletedPart, StorageError> {
        let capabilities = &self.storage.capabilities;
        let size = bytes.len() as u64;
        let mut md5 = match capabilities.requires_part_checksums() {
            true => Some(content_md5(&bytes).await?),
            false => None,
        };
        loop {
            let with_md5 = md5.is_some();
            let body = ByteStream::from(bytes.clone());
            match self.send_stream(number, size, body, digest, md5).await {
                Err(refused) if !with_md5 && capabilities.wants_part_checksum(&refused) => {
                    md5 = Some(content_md5(&bytes).await?);
                }
                outcome => return outcome,
            }
        }
    }

    /// [`Self::send`] with a body that is not in memory, and the value of `Content-MD5`, where the store demands it.
    pub(crate) async fn send_stream(
        &self,
        number: i32,
        size: u64,
        body: ByteStream,
        digest: Option<Sha256Digest>,
        md5: Option<String>,
    ) -> Result<CompletedPart, StorageError> {
        let request = self
            .storage
            .client()
            .await
            .upload_part()
            .bucket(self.storage.bucket())
            .key(&self.key)
            .upload_id(&self.id)
            .part_number(number)
            .content_length(i64::try_from(size).unwrap_or(i64::MAX))
            .set_content_md5(md5)
            .body(body)
            .customize()
            .config_override(self.storage.pace.for_body(size));
        let request = match digest {
            Some(digest) => request.interceptor(SignWithDigest(digest)),
            None => request.disable_payload_signing(),
        };
        let answer = request
            .send()
            .await
            .map_err(error::map_error("take a part"))?;
        let etag = answer.e_tag().ok_or_else(|| incomplete("ETag"))?;
        Ok(part(number, etag))
    }

    /// Makes the store copy a range of another object of the bucket into part `number`. A copy of a whole object that
    /// was put in one request must have the same ETag, where ETags are checksums.
    pub(crate) async fn copy(
        &self,
        number: i32,
        from: &str,
        range: Range<u64>,
        whole: Option<&str>,
    ) -> Result<CompletedPart, StorageError> {
        let size = range.end - range.start;
        let answer = self
            .storage
            .client()
            .await
            .upload_part_copy()
            .bucket(self.storage.bucket())
            .key(&self.key)
            .upload_id(&self.id)
            .part_number(number)
            .copy_source(self.storage.copy_source(from))
            .copy_source_range(format!("bytes={}-{}", range.start, range.end - 1))
            .customize()
            .config_override(self.storage.pace.for_copy(size))
            .send()
            .await
            .map_err(error::map_error("copy a part"))?;
        let copied = answer.copy_part_result();
        let etag = copied
            .and_then(|copied| copied.e_tag())
            .ok_or_else(|| incomplete("ETag"))?;
        if let Some(whole) = whole
            && has_checksums(&answer)
            && let (Some(there), Some(copied)) = (md5(whole), md5(etag))
            && !there.eq_ignore_ascii_case(copied)
        {
            let problem = "the checksum of a copied part differs from that of its source";
            return Err(StorageError::NotAsSent(problem.to_owned()));
        }
        Ok(part(number, etag))
    }

    /// Completes the upload from its parts, which are sorted first. Aborts it on failure.
    pub(crate) async fn complete(
        mut self,
        object: &NewObject<'_>,
        mut parts: Vec<CompletedPart>,
    ) -> Result<(), StorageError> {
        parts.sort_unstable_by_key(|part| part.part_number);
        let storage = Arc::clone(&self.storage);
        let upload = CompletedMultipartUpload::builder()
            .set_parts(Some(parts))
            .build();
        let client = storage.client().await;
        let completed = storage.put_conditionally(object, "complete a multipart upload", |fence| {
            client
                .complete_multipart_upload()
                .bucket(storage.bucket())
                .key(&self.key)
                .upload_id(&self.id)
                .multipart_upload(upload.clone())
                .set_if_none_match(fence.then(|| "*".to_owned()))
                .customize()
                .config_override(attempts(object, storage.pace.for_copy(object.size)))
                .send()
        });
        let completed = completed.await;
        if let Ok(Some(_)) = completed {
            self.closed = true;
            return Ok(());
        }
        // `None`: an earlier run's object exists, or this upload completed and the response was lost. The abort then
        // finds the upload open or gone; both are fine.
        self.abort().await;
        completed.map(drop)
    }

    /// Aborts the upload.
    pub(crate) async fn abort(mut self) {
        self.closed = true;
        self.storage.abort(&self.key, &self.id).await;
    }
}

impl S3Storage {
    fn copy_source(&self, from: &str) -> String {
        format!("{}/{}", self.bucket(), encoded(&self.full_key(from)))
    }

    /// Aborts a multipart upload to a key in the bucket. One that is gone counts as aborted; if it cannot be aborted now, the sweep will do
    /// it.
    pub(super) async fn abort(&self, key: &str, id: &str) {
        let request = self
            .client()
            .await
            .abort_multipart_upload()
            .bucket(self.bucket())
            .key(key)
            .upload_id(id);
        if let Err(error) = request.send().await {
            let gone = error::answer(&error).is_some_and(|answer| answer.status == 404);
            if !gone {
                let error = error::map_error("abort a multipart upload")(error);
                tracing::warn!(%error, "a multipart upload could not be aborted, the sweep will retry");
            }
        }
    }
}

/// Whether ETags are checksums: not if the store encrypts with customer-provided or KMS keys. Source: "Amazon S3 API
/// Reference", `Object`.
fn has_checksums(answer: &UploadPartCopyOutput) -> bool {
    let by_kms = matches!(
        answer.server_side_encryption(),
        Some(ServerSideEncryption::AwsKms | ServerSideEncryption::AwsKmsDsse)
    );
    !by_kms && answer.sse_customer_algorithm().is_none()
}

/// Returns the MD5 in an ETag, if it is one: some stores use other ETags, and multipart uploads have others as well.
pub(super) fn md5(etag: &str) -> Option<&str> {
    let digits = etag.trim_matches('"');
    let is_md5 = digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_md5.then_some(digits)
}

fn part(number: i32, etag: &str) -> CompletedPart {
    CompletedPart::builder()
        .part_number(number)
        .e_tag(etag)
        .build()
}

fn incomplete(what: &str) -> StorageError {
    StorageError::NotAsSent(format!("the store's response has no {what}"))
}
