//! Objects that are put in one request.

use super::{NewObject, S3Storage, conditional_put, once, payload::SignWithDigest};
use crate::{digest::Sha256Digest, storage::StorageError};
use aws_sdk_s3::{
    config::Builder, operation::put_object::PutObjectOutput, primitives::ByteStream,
    types::ServerSideEncryption,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use md5::{Digest, Md5};
use std::io;

/// What a response says about the stored bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PutProof {
    /// It contains a checksum of the bytes, so that they need not be looked at again.
    Checksum,
    /// It contains none, or there was no response.
    None,
}

/// How a body is protected in transit, in addition to the digest that signs the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyChecksum {
    Sha256,
    Md5,
}

impl S3Storage {
    /// Puts an object in one request.
    pub(crate) async fn put_object(
        &self,
        object: &NewObject<'_>,
        bytes: Bytes,
    ) -> Result<PutProof, StorageError> {
        self.require_marker().await?;
        self.put_unmarked(object, bytes).await
    }

    /// [`Self::put_object`] into a bucket whose marker need not exist yet.
    pub(super) async fn put_unmarked(
        &self,
        object: &NewObject<'_>,
        bytes: Bytes,
    ) -> Result<PutProof, StorageError> {
        let checksums = &self.capabilities.checksums;
        if !checksums.is_usable() {
            return self.put_once(object, bytes, BodyChecksum::Md5).await;
        }
        let sent = self.put_once(object, bytes.clone(), BodyChecksum::Sha256);
        match sent.await {
            Err(
                refused @ StorageError::Refused {
                    status: 400 | 501, ..
                },
            ) if checksums.support() == crate::storage::Support::Unknown => {
                // Perhaps because of the header; then the same request without it is accepted.
                match self.put_once(object, bytes, BodyChecksum::Md5).await {
                    Ok(proof) => {
                        checksums.refuse();
                        Ok(proof)
                    }
                    Err(_) => Err(refused),
                }
            }
            Ok(proof) => {
                checksums.confirm();
                Ok(proof)
            }
            Err(error) => Err(error),
        }
    }

    async fn put_once(
        &self,
        object: &NewObject<'_>,
        bytes: Bytes,
        checksum: BodyChecksum,
    ) -> Result<PutProof, StorageError> {
        let digest = object
            .sha256
            .unwrap_or_else(|| Sha256Digest::compute(&bytes));
        let sha256 = BASE64_STANDARD.encode(digest.0);
        let content_md5 = match checksum {
            BodyChecksum::Sha256 => None,
            BodyChecksum::Md5 => Some(content_md5(&bytes).await?),
        };
        let with_sha256 = checksum == BodyChecksum::Sha256;
        let client = self.client().await;
        let sent = self.put_conditionally(object, "put an object", |fence| {
            client
                .put_object()
                .bucket(self.bucket())
                .key(self.full_key(object.key))
                .content_type(object.content_type)
                .metadata(conditional_put::ORIGIN, object.origin)
                .set_checksum_sha256(with_sha256.then(|| sha256.clone()))
                .set_content_md5(content_md5.clone())
                .set_if_none_match(fence.then(|| "*".to_owned()))
                .set_server_side_encryption(self.settings.encryption())
                .set_ssekms_key_id(self.settings.kms_key_id.clone())
                .set_storage_class(self.settings.class_of(object))
                .body(ByteStream::from(bytes.clone()))
                .customize()
                .interceptor(SignWithDigest(digest))
                .config_override(attempts(object, self.pace.for_body(object.size)))
                .send()
        });
        match sent.await? {
            Some(answer) => proof(&answer, &bytes, &sha256).await,
            None => Ok(PutProof::None),
        }
    }
}

/// What the response proves.
///
/// # Errors
/// [`StorageError::NotAsSent`] when it proves that other bytes were stored.
async fn proof(
    answer: &PutObjectOutput,
    bytes: &Bytes,
    sha256: &str,
) -> Result<PutProof, StorageError> {
    match answer.checksum_sha256() {
        Some(stored) if stored == sha256 => return Ok(PutProof::Checksum),
        Some(_) => {
            let problem = "the store answers another SHA-256";
            return Err(StorageError::NotAsSent(problem.to_owned()));
        }
        None => {}
    }
    // The ETag of an object encrypted with a KMS or customer key is not an MD5, and some stores never return one. So an
    // ETag that differs proves nothing.
    let by_kms = matches!(
        answer.server_side_encryption(),
        Some(ServerSideEncryption::AwsKms | ServerSideEncryption::AwsKmsDsse)
    );
    let etag = answer.e_tag().and_then(super::multipart::md5);
    let etag = etag.filter(|_| !by_kms && answer.sse_customer_algorithm().is_none());
    let Some(etag) = etag else {
        return Ok(PutProof::None);
    };
    let digest = md5_of(bytes.clone()).await?;
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(match etag.eq_ignore_ascii_case(&hex) {
        true => PutProof::Checksum,
        false => PutProof::None,
    })
}

/// The value of `Content-MD5` (RFC 1864).
pub(super) async fn content_md5(bytes: &Bytes) -> Result<String, StorageError> {
    Ok(BASE64_STANDARD.encode(md5_of(bytes.clone()).await?))
}

async fn md5_of(bytes: Bytes) -> Result<[u8; 16], StorageError> {
    tokio::task::spawn_blocking(move || Md5::digest(&bytes).into())
        .await
        .map_err(|lost| StorageError::io("hash a body")(io::Error::other(lost)))
}

/// An object that may replace another writer's is sent once: the response to a retry proves nothing about the first
/// attempt.
pub(super) fn attempts(object: &NewObject<'_>, config: Builder) -> Builder {
    match object.overwrite && !object.is_staged {
        true => once(config),
        false => config,
    }
}
