//! GET: the bytes of a complete upload, from staging or from storage.

use super::{
    error,
    request::{TusRequest, value},
};
use crate::api::{
    content_disposition::attachment,
    problem::{Code, Problem},
};
use bytes::Bytes;
use entity::{
    FileId,
    file::{self, FileStatus},
    upload::{Model, UploadKind, UploadStatus},
};
use futures::{
    Stream, StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use http::{HeaderValue, StatusCode, header};
use landfall_core::{
    app::App,
    files::{self, OwnerScope},
    storage::StorageKey,
    uploads,
};
use poem::{Body, Response};
use std::io;

/// Maximum number of attempts: finalize may move the bytes between two attempts, but only once.
const MAX_ATTEMPTS: usize = 3;

pub(super) async fn content(request: TusRequest) -> Result<Response, Problem> {
    let upload = request.upload().await?;
    if upload.status != UploadStatus::Complete {
        return Err(Problem::new(
            Code::NotStored,
            "the upload is not complete yet",
        ));
    }
    if upload.kind == UploadKind::Partial {
        return Err(Problem::new(
            Code::Forbidden,
            "a partial upload can only be concatenated",
        ));
    }
    let file = file_of(&request, &upload).await?;
    for _ in 0..MAX_ATTEMPTS {
        let staged = uploads::staged(&request.app, &upload).await;
        if let Some((size, bytes)) = staged.map_err(error::problem)? {
            let fallback = StoredFallback::new(&request, &upload);
            let bytes = with_fallback(bytes.map_err(io::Error::other).boxed(), fallback);
            return Ok(response(&file, size, Body::from_bytes_stream(bytes)));
        }
        let now = file_of(&request, &upload).await?;
        if let (FileStatus::Stored, Some(key)) = (now.status, now.storage_key.as_deref()) {
            let key: StorageKey = key.parse()?;
            let bytes = request.app.storage.read(&key, None).await?;
            let body = Body::from_bytes_stream(bytes.map_err(io::Error::other));
            return Ok(response(&file, now.size_bytes.unsigned_abs(), body));
        }
        if matches!(now.status, FileStatus::Failed | FileStatus::Deleted) {
            break;
        }
    }
    Err(Problem::new(
        Code::UploadGone,
        "the bytes of the upload are no longer available",
    ))
}

async fn file_of(request: &TusRequest, upload: &Model) -> Result<file::Model, Problem> {
    let db = request.app.db.read();
    let found = files::get(db, &request.caller.sees(), upload.file_id).await?;
    found.ok_or_else(|| Problem::not_found("file"))
}

type UploadBytes = BoxStream<'static, io::Result<Bytes>>;

/// Reads the bytes of a file from storage, if finalize moves them while they are read from staging.
struct StoredFallback {
    app: App,
    sees: OwnerScope,
    file: FileId,
}

impl StoredFallback {
    fn new(request: &TusRequest, upload: &Model) -> Self {
        Self {
            app: request.app.clone(),
            sees: request.caller.sees(),
            file: upload.file_id,
        }
    }

    /// Returns the bytes from an offset on, if the file is stored.
    async fn from(&self, at: u64) -> io::Result<Option<UploadBytes>> {
        let found = files::get(self.app.db.read(), &self.sees, self.file).await;
        let stored = found
            .map_err(io::Error::other)?
            .filter(|file| file.status == FileStatus::Stored);
        let Some((key, size)) = stored.and_then(|file| Some((file.storage_key?, file.size_bytes)))
        else {
            return Ok(None);
        };
        let key: StorageKey = key.parse().map_err(io::Error::other)?;
        let rest = Some(at..size.unsigned_abs());
        let bytes = self.app.storage.read(&key, rest).await;
        let bytes = bytes.map_err(io::Error::other)?;
        Ok(Some(bytes.map_err(io::Error::other).boxed()))
    }
}

/// Streams staged bytes; if finalize deletes them before they are read completely, the rest comes from storage.
fn with_fallback(
    staged: UploadBytes,
    fallback: StoredFallback,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let begin = (staged, 0, Some(fallback));
    stream::try_unfold(begin, |(mut bytes, at, mut fallback)| async move {
        loop {
            let error = match bytes.try_next().await {
                Ok(None) => return Ok(None),
                Ok(Some(chunk)) => {
                    let next = at + u64::try_from(chunk.len()).unwrap_or(u64::MAX);
                    return Ok(Some((chunk, (bytes, next, fallback))));
                }
                Err(error) => error,
            };
            // Only once: what storage cannot read is nowhere else.
            let Some(moved) = fallback.take() else {
                return Err(error);
            };
            bytes = moved.from(at).await?.ok_or(error)?;
        }
    })
}

fn response(file: &file::Model, size: u64, body: Body) -> Response {
    let mut response = Response::builder().status(StatusCode::OK).body(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    for (name, text) in [
        (header::CONTENT_TYPE, file.content_type.as_str()),
        (
            header::CONTENT_DISPOSITION,
            &attachment(&file.original_filename),
        ),
        (header::CACHE_CONTROL, "private, no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; sandbox",
        ),
    ] {
        headers.insert(name, value(text));
    }
    response
}
