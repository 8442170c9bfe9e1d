//! `s3s-fs`, with the S3 features it lacks: a list of open multipart uploads, `NoSuchUpload` for others,
//! `NoSuchBucket`, every storage class, a single winner among conditional writes, ETags of single-request uploads in
//! lists, and no `aws-chunked` among the stored encodings.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use async_trait::async_trait;
use s3s::dto::*;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;

use super::quirks::{Quirks, S3Quirk};
use crate::lock::lock;

/// A multipart upload that is neither completed nor aborted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenUpload {
    /// The bucket.
    pub bucket: String,
    /// The key that it would become.
    pub key: String,
    /// The id.
    pub upload_id: String,
    /// When it was created.
    pub initiated: SystemTime,
}

#[derive(Clone)]
pub(crate) struct Store(Arc<Inner>);

struct Inner {
    files: FileSystem,
    root: std::path::PathBuf,
    quirks: Arc<Quirks>,
    open: Mutex<HashMap<String, OpenUpload>>,
    /// Empty objects whose keys end with a slash, which a folder cannot hold, by bucket.
    folder_markers: Mutex<Vec<(String, String)>>,
    /// The ETags of single-request uploads, by bucket and key.
    etags: Mutex<HashMap<(String, String), ETag>>,
    writers: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Store").field(&self.0.root).finish()
    }
}

impl Store {
    pub(crate) fn new(root: &Path, quirks: Arc<Quirks>) -> Self {
        let files = FileSystem::new(root).expect("cannot use the folder of the S3 server");
        let root = root.to_owned();
        Self(Arc::new(Inner {
            files,
            root,
            quirks,
            open: Mutex::default(),
            folder_markers: Mutex::default(),
            etags: Mutex::default(),
            writers: Mutex::default(),
        }))
    }

    /// Opens an upload that gets no parts.
    pub(crate) fn leave_open(&self, bucket: &str, key: &str) -> String {
        let mut open = lock(&self.0.open);
        let upload_id = format!("left-open-{}", open.len());
        let upload = OpenUpload {
            bucket: bucket.to_owned(),
            key: key.to_owned(),
            upload_id: upload_id.clone(),
            initiated: SystemTime::now(),
        };
        open.insert(upload_id.clone(), upload);
        upload_id
    }

    pub(crate) fn plant_folder_marker(&self, bucket: &str, key: &str) {
        lock(&self.0.folder_markers).push((bucket.to_owned(), key.to_owned()));
    }

    /// The open uploads by key, then by age.
    pub(crate) fn open_uploads(&self) -> Vec<OpenUpload> {
        let mut uploads: Vec<_> = lock(&self.0.open).values().cloned().collect();
        uploads.sort_by(|a, b| (&a.key, a.initiated).cmp(&(&b.key, b.initiated)));
        uploads
    }

    fn require_bucket(&self, bucket: &str) -> S3Result<()> {
        if self.0.root.join(bucket).is_dir() {
            Ok(())
        } else {
            Err(s3_error!(NoSuchBucket))
        }
    }

    fn require_upload(&self, upload_id: &str) -> S3Result<()> {
        let open = lock(&self.0.open).contains_key(upload_id);
        if open {
            Ok(())
        } else {
            Err(s3_error!(NoSuchUpload))
        }
    }

    /// Held during a conditional write, from the check to the write.
    fn writer(&self, bucket: &str, key: &str) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(
            lock(&self.0.writers)
                .entry(format!("{bucket}/{key}"))
                .or_default(),
        )
    }
}

type Answer<T> = S3Result<S3Response<T>>;

#[async_trait]
impl S3 for Store {
    async fn put_object(&self, mut request: S3Request<PutObjectInput>) -> Answer<PutObjectOutput> {
        let input = &mut request.input;
        self.require_bucket(&input.bucket)?;
        input.content_encoding = stored_encoding(input.content_encoding.take());
        input.storage_class = None;
        if self.0.quirks.has(S3Quirk::IgnoredConditions) {
            input.if_none_match = None;
        }
        let writer = self.writer(&input.bucket, &input.key);
        let conditional = input.if_none_match.is_some() || input.if_match.is_some();
        let _writes = if conditional {
            Some(writer.lock().await)
        } else {
            None
        };
        let place = (request.input.bucket.clone(), request.input.key.clone());
        let answer = self.0.files.put_object(request).await?;
        if let Some(etag) = answer.output.e_tag.clone() {
            lock(&self.0.etags).insert(place, etag);
        }
        Ok(answer)
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> Answer<GetObjectOutput> {
        self.require_bucket(&request.input.bucket)?;
        self.0.files.get_object(request).await
    }

    async fn create_multipart_upload(
        &self,
        mut request: S3Request<CreateMultipartUploadInput>,
    ) -> Answer<CreateMultipartUploadOutput> {
        let input = &mut request.input;
        self.require_bucket(&input.bucket)?;
        input.content_encoding = stored_encoding(input.content_encoding.take());
        input.storage_class = None;
        let (bucket, key) = (input.bucket.clone(), input.key.clone());
        let answer = self.0.files.create_multipart_upload(request).await?;
        let upload_id = answer.output.upload_id.clone().unwrap_or_default();
        let initiated = SystemTime::now();
        let upload = OpenUpload {
            bucket,
            key,
            upload_id: upload_id.clone(),
            initiated,
        };
        lock(&self.0.open).insert(upload_id, upload);
        Ok(answer)
    }

    async fn upload_part(&self, request: S3Request<UploadPartInput>) -> Answer<UploadPartOutput> {
        self.require_upload(&request.input.upload_id)?;
        self.0.files.upload_part(request).await
    }

    async fn upload_part_copy(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> Answer<UploadPartCopyOutput> {
        self.require_upload(&request.input.upload_id)?;
        self.0.files.upload_part_copy(request).await
    }

    async fn list_parts(&self, request: S3Request<ListPartsInput>) -> Answer<ListPartsOutput> {
        self.require_upload(&request.input.upload_id)?;
        let mut answer = self.0.files.list_parts(request).await?;
        if let Some(parts) = &mut answer.output.parts {
            parts.sort_by_key(|part| part.part_number);
        }
        Ok(answer)
    }

    async fn complete_multipart_upload(
        &self,
        mut request: S3Request<CompleteMultipartUploadInput>,
    ) -> Answer<CompleteMultipartUploadOutput> {
        let input = &mut request.input;
        if self.0.quirks.has(S3Quirk::IgnoredConditions) {
            input.if_none_match = None;
        }
        let upload_id = input.upload_id.clone();
        let writer = self.writer(&input.bucket, &input.key);
        let _writes = writer.lock().await;
        // Checked under the lock: if two requests complete one upload, the second finds none.
        self.require_upload(&upload_id)?;
        let answer = self.0.files.complete_multipart_upload(request).await?;
        lock(&self.0.open).remove(&upload_id);
        Ok(answer)
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> Answer<AbortMultipartUploadOutput> {
        let upload_id = request.input.upload_id.clone();
        self.require_upload(&upload_id)?;
        // s3s-fs forgets an upload whose completion it rejected; with S3 it can still be aborted.
        let answer = self.0.files.abort_multipart_upload(request).await;
        lock(&self.0.open).remove(&upload_id);
        Ok(answer.unwrap_or_else(|_| S3Response::new(AbortMultipartUploadOutput::default())))
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> Answer<ListMultipartUploadsOutput> {
        let input = request.input;
        self.require_bucket(&input.bucket)?;
        let prefix = input.prefix.clone().unwrap_or_default();
        let after = |upload: &OpenUpload| match (&input.key_marker, &input.upload_id_marker) {
            (Some(key), Some(id)) => (&upload.key, &upload.upload_id) > (key, id),
            (Some(key), None) => &upload.key > key,
            (None, _) => true,
        };
        let mut uploads = self.open_uploads();
        uploads.retain(|u| u.bucket == input.bucket && u.key.starts_with(&prefix) && after(u));
        uploads.sort_by(|a, b| (&a.key, &a.upload_id).cmp(&(&b.key, &b.upload_id)));
        let page = usize::try_from(input.max_uploads.unwrap_or(1000).clamp(1, 1000)).unwrap_or(1);
        let truncated = uploads.len() > page;
        uploads.truncate(page);
        let last = uploads.last().filter(|_| truncated);
        Ok(S3Response::new(ListMultipartUploadsOutput {
            next_key_marker: last.map(|upload| upload.key.clone()),
            next_upload_id_marker: last.map(|upload| upload.upload_id.clone()),
            is_truncated: Some(truncated),
            max_uploads: input.max_uploads,
            uploads: Some(uploads.into_iter().map(listed).collect()),
            bucket: Some(input.bucket),
            prefix: input.prefix,
            key_marker: input.key_marker,
            upload_id_marker: input.upload_id_marker,
            ..Default::default()
        }))
    }

    async fn delete_bucket(
        &self,
        request: S3Request<DeleteBucketInput>,
    ) -> Answer<DeleteBucketOutput> {
        self.0.files.delete_bucket(request).await
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> Answer<DeleteObjectOutput> {
        let place = (request.input.bucket.clone(), request.input.key.clone());
        let answer = self.0.files.delete_object(request).await?;
        lock(&self.0.etags).remove(&place);
        Ok(answer)
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> Answer<DeleteObjectsOutput> {
        self.0.files.delete_objects(request).await
    }

    async fn get_bucket_location(
        &self,
        request: S3Request<GetBucketLocationInput>,
    ) -> Answer<GetBucketLocationOutput> {
        self.0.files.get_bucket_location(request).await
    }

    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> Answer<HeadBucketOutput> {
        self.0.files.head_bucket(request).await
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> Answer<HeadObjectOutput> {
        self.0.files.head_object(request).await
    }

    async fn list_buckets(
        &self,
        request: S3Request<ListBucketsInput>,
    ) -> Answer<ListBucketsOutput> {
        self.0.files.list_buckets(request).await
    }

    async fn list_objects(
        &self,
        request: S3Request<ListObjectsInput>,
    ) -> Answer<ListObjectsOutput> {
        self.0.files.list_objects(request).await
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> Answer<ListObjectsV2Output> {
        let bucket = request.input.bucket.clone();
        let prefix = request.input.prefix.clone().unwrap_or_default();
        let is_first = request.input.continuation_token.is_none();
        let mut answer = self.0.files.list_objects_v2(request).await?;
        if is_first {
            let markers = lock(&self.0.folder_markers);
            let wanted = markers
                .iter()
                .filter(|(of, key)| *of == bucket && key.starts_with(&prefix));
            let contents = answer.output.contents.get_or_insert_default();
            contents.extend(wanted.map(|(_, key)| Object {
                key: Some(key.clone()),
                size: Some(0),
                last_modified: Some(SystemTime::now().into()),
                ..Default::default()
            }));
        }
        let etags = lock(&self.0.etags);
        for object in answer.output.contents.iter_mut().flatten() {
            let place = (bucket.clone(), object.key.clone().unwrap_or_default());
            object.e_tag = etags.get(&place).cloned();
        }
        Ok(answer)
    }

    async fn copy_object(&self, request: S3Request<CopyObjectInput>) -> Answer<CopyObjectOutput> {
        self.0.files.copy_object(request).await
    }
}

fn listed(upload: OpenUpload) -> MultipartUpload {
    MultipartUpload {
        key: Some(upload.key),
        upload_id: Some(upload.upload_id),
        initiated: Some(upload.initiated.into()),
        ..Default::default()
    }
}

/// `aws-chunked` is how the request was sent, not what the object is.
fn stored_encoding(encoding: Option<String>) -> Option<String> {
    let encoding = encoding?;
    let kept: Vec<_> = encoding
        .split(',')
        .map(str::trim)
        .filter(|one| *one != "aws-chunked")
        .collect();
    (!kept.is_empty()).then(|| kept.join(","))
}
