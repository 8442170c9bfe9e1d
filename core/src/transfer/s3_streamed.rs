//! Parts that are too large for memory: objects above 156 GiB, which do not fit into 10,000 parts of 16 MiB.
//!
//! One part at a time is streamed in small pieces, and is read again when it must be resent. The digest is computed by
//! a second read alongside, which finds the bytes that the first has just read in the page cache.

use super::{TransferError, TransferRequest, part_reader::PartReader};
use crate::{
    digest::Sha256Digest,
    staging::{Staging, StagingError},
    storage::s3::MultipartUpload,
};
use aws_sdk_s3::{
    primitives::{ByteStream, SdkBody},
    types::CompletedPart,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use md5::{Digest, Md5};
use std::ops::Range;
use tokio::{sync::mpsc, task::JoinError};

/// Maximum number of attempts per part.
const MAX_ATTEMPTS: usize = 3;
/// How many bytes the second read takes at a time.
const READ_SIZE: u64 = 1024 * 1024;

/// Sends all parts, of `part_size` bytes except the last, one after the other.
pub(super) async fn send(
    staging: &Staging,
    request: &TransferRequest<'_>,
    upload: &MultipartUpload,
    part_size: u64,
) -> Result<(Sha256Digest, Vec<CompletedPart>), TransferError> {
    let hashing = async {
        let mut parts = PartReader::read(staging, request.pieces, READ_SIZE, false);
        while parts.next().await.is_some() {}
        let digest = parts.finish().await?;
        request.check(digest)?;
        Ok(digest)
    };
    let sending = async {
        let size = request.size();
        let step = usize::try_from(part_size).unwrap_or(usize::MAX);
        let mut sent = Vec::new();
        for (number, start) in (1..).zip((0..size).step_by(step)) {
            let range = start..size.min(start + part_size);
            sent.push(send_part(staging, request, upload, number, range).await?);
        }
        Ok(sent)
    };
    futures::try_join!(hashing, sending)
}

async fn send_part(
    staging: &Staging,
    request: &TransferRequest<'_>,
    upload: &MultipartUpload,
    number: i32,
    range: Range<u64>,
) -> Result<CompletedPart, TransferError> {
    let mut attempt = 1;
    loop {
        let md5 = match upload.capabilities().requires_part_checksums() {
            true => Some(content_md5(staging, request, range.clone()).await?),
            false => None,
        };
        let body = body(staging, request, range.clone());
        let size = range.end - range.start;
        match upload.send_stream(number, size, body, None, md5).await {
            Err(error) if attempt < MAX_ATTEMPTS && error.is_transient() => {
                // If it was refused for want of its MD5, the next attempt has it.
                upload.capabilities().wants_part_checksum(&error);
                attempt += 1;
            }
            other => return Ok(other?),
        }
    }
}

/// Returns the value of `Content-MD5` for a range, which takes another read of it.
async fn content_md5(
    staging: &Staging,
    request: &TransferRequest<'_>,
    range: Range<u64>,
) -> Result<String, TransferError> {
    let mut bytes = body(staging, request, range);
    let mut hasher = Md5::new();
    while let Some(bytes) = bytes.next().await {
        let bytes = bytes.map_err(|error| StagingError::io("be read")(error.into()))?;
        let updated = tokio::task::spawn_blocking(move || {
            hasher.update(&bytes);
            hasher
        });
        let lost = |lost| StagingError::io("hash")(std::io::Error::other::<JoinError>(lost));
        hasher = updated.await.map_err(lost)?;
    }
    Ok(BASE64_STANDARD.encode(hasher.finalize()))
}

/// Streams a range of all pieces together, reading it as it is sent.
fn body(staging: &Staging, request: &TransferRequest<'_>, range: Range<u64>) -> ByteStream {
    let (sender, receiver) = mpsc::channel::<Result<Bytes, StagingError>>(2);
    let (staging, pieces) = (staging.clone(), request.pieces.to_vec());
    tokio::spawn(async move {
        let mut start = 0;
        for piece in pieces {
            let end = start + piece.size;
            let wanted = range.start.clamp(start, end) - start..range.end.clamp(start, end) - start;
            start = end;
            if wanted.is_empty() {
                continue;
            }
            let wanted = piece.offset + wanted.start..piece.offset + wanted.end;
            let opened = staging.read(piece.key, wanted).await;
            let mut bytes = stream::once(async { opened }).try_flatten().boxed();
            while let Some(bytes) = bytes.next().await {
                let failed = bytes.is_err();
                if sender.send(bytes).await.is_err() || failed {
                    return;
                }
            }
        }
    });
    let frames = stream::unfold(receiver, |mut receiver| async move {
        let next = receiver.recv().await?;
        Some((next.map(Frame::data), receiver))
    });
    ByteStream::new(SdkBody::from_body_1_x(StreamBody::new(frames)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{self, Backend, BucketAddressing, ByteSize, S3Settings},
        staging::{StagingKey, WriteOptions},
        storage::{
            Storage,
            s3::{NewObject, S3Storage},
        },
        transfer::{Piece, TransferError},
    };
    use landfall_test_servers::{S3Operation, S3Server};
    use std::{convert::Infallible, time::Duration};
    use tempfile::TempDir;

    const PART: u64 = 5 * 1024 * 1024;

    async fn open(folder: &TempDir, server: &S3Server) -> (Staging, Storage) {
        let config = config::StorageConfig {
            backend: Backend::S3,
            path: folder.path().to_owned(),
            prefix: String::new(),
            s3: S3Settings {
                bucket_name: "large".to_owned(),
                endpoint_url: Some(server.endpoint().parse().unwrap()),
                region_name: "us-east-1".to_owned(),
                access_key_id: server.access_key().to_owned(),
                secret_access_key: server.secret_key().into(),
                session_token: None,
                querystring_auth: true,
                querystring_expire: 60,
                file_overwrite: false,
                addressing: BucketAddressing::Auto,
                public_url: None,
                server_side_encryption: None,
                kms_key_id: None,
                storage_class: None,
            },
        };
        let storage = Storage::open(&config).await.unwrap();
        let config = config::StagingConfig {
            backend: Backend::Fs,
            path: folder.path().join("staging"),
            quota: None,
            min_free: ByteSize(0),
            direct_io: true,
            grace: Duration::from_secs(60),
        };
        (Staging::open(&config, &storage).await.unwrap(), storage)
    }

    async fn stage(staging: &Staging, bytes: &Bytes) -> Piece {
        let key = StagingKey::generate();
        let body = stream::iter([Ok::<_, Infallible>(bytes.clone())]);
        let staged = staging
            .write(key, body, WriteOptions::default())
            .await
            .unwrap();
        Piece::new(key, staged.size)
    }

    #[tokio::test]
    async fn parts_pass_through_and_are_sent_again_after_a_fault() {
        let (folder, server) = (TempDir::new().unwrap(), S3Server::start().await);
        server.create_bucket("large");
        let (staging, storage) = open(&folder, &server).await;
        let first: Bytes = (0..7_000_000_u32).map(|i| (i >> 9) as u8).collect();
        let second: Bytes = (0..6_000_001_u32).map(|i| (i >> 7) as u8).collect();
        let pieces = [
            stage(&staging, &first).await,
            stage(&staging, &second).await,
        ];
        let whole = [first, second].concat();
        let key = "uploads/large".parse().unwrap();
        let request = TransferRequest {
            pieces: &pieces,
            key: &key,
            content_type: "a/b",
            expected: None,
            known: None,
            rehash: false,
            overwrite: false,
        };
        let object = NewObject {
            key: key.as_str(),
            content_type: "a/b",
            origin: "large",
            size: whole.len() as u64,
            sha256: None,
            overwrite: false,
            is_staged: false,
        };
        let store = storage.downcast::<S3Storage>().unwrap();
        let upload = MultipartUpload::begin(&store, &object).await.unwrap();
        server.fail_next(S3Operation::UploadPart, 2, 503);
        let sent = send(&staging, &request, &upload, PART).await;
        let (digest, parts) = sent.unwrap();
        assert_eq!((digest, parts.len()), (Sha256Digest::compute(&whole), 3));
        upload.complete(&object, parts).await.unwrap();
        assert!(server.object("large", "uploads/large").unwrap() == whole);

        let upload = MultipartUpload::begin(&store, &object).await.unwrap();
        server.fail_next(S3Operation::UploadPart, 1000, 503);
        let failed = send(&staging, &request, &upload, PART).await;
        assert!(matches!(failed, Err(TransferError::Storage(error)) if error.is_transient()));
        upload.abort().await;
        assert!(server.open_multipart_uploads().is_empty());
    }
}
