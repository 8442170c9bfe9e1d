//! GET: the bytes of a complete upload, from staging or from storage, wherever they are by now.

use super::{
    call::{Call, value},
    refuse,
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

/// Finalize may move the bytes between two looks, but only once.
const LOOKS: usize = 3;

pub(super) async fn content(call: Call) -> Result<Response, Problem> {
    let upload = call.upload().await?;
    if upload.status != UploadStatus::Complete {
        return Err(Problem::new(
            Code::NotStored,
            "the upload is not complete yet",
        ));
    }
    if upload.kind == UploadKind::Partial {
        return Err(Problem::new(
            Code::Forbidden,
            "a partial upload can only be joined",
        ));
    }
    let file = file_of(&call, &upload).await?;
    for _ in 0..LOOKS {
        let staged = uploads::staged(&call.app, &upload).await;
        if let Some((size, bytes)) = staged.map_err(refuse::problem)? {
            let landed = Landed::of(&call, &upload);
            let bytes = following(bytes.map_err(io::Error::other).boxed(), landed);
            return Ok(answer(&file, size, Body::from_bytes_stream(bytes)));
        }
        let now = file_of(&call, &upload).await?;
        if let (FileStatus::Stored, Some(key)) = (now.status, now.storage_key.as_deref()) {
            let key: StorageKey = key.parse()?;
            let bytes = call.app.storage.read(&key, None).await?;
            let body = Body::from_bytes_stream(bytes.map_err(io::Error::other));
            return Ok(answer(&file, now.size_bytes.unsigned_abs(), body));
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

async fn file_of(call: &Call, upload: &Model) -> Result<file::Model, Problem> {
    let db = call.app.db.read();
    let found = files::get(db, &call.caller.sees(), upload.file_id).await?;
    found.ok_or_else(|| Problem::not_found("file"))
}

type UploadBytes = BoxStream<'static, io::Result<Bytes>>;

/// Where the bytes of a file go while they are read from staging.
struct Landed {
    app: App,
    sees: OwnerScope,
    file: FileId,
}

impl Landed {
    fn of(call: &Call, upload: &Model) -> Self {
        Self {
            app: call.app.clone(),
            sees: call.caller.sees(),
            file: upload.file_id,
        }
    }

    /// The bytes from an offset on, if the file is stored.
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

/// Staged bytes; should finalize take them away before they are all read, the rest comes from where it has put them.
fn following(staged: UploadBytes, landed: Landed) -> impl Stream<Item = io::Result<Bytes>> + Send {
    let begin = (staged, 0, Some(landed));
    stream::try_unfold(begin, |(mut bytes, at, mut landed)| async move {
        loop {
            let error = match bytes.try_next().await {
                Ok(None) => return Ok(None),
                Ok(Some(chunk)) => {
                    let next = at + u64::try_from(chunk.len()).unwrap_or(u64::MAX);
                    return Ok(Some((chunk, (bytes, next, landed))));
                }
                Err(error) => error,
            };
            // Only once: what storage cannot read is not elsewhere.
            let Some(moved) = landed.take() else {
                return Err(error);
            };
            bytes = moved.from(at).await?.ok_or(error)?;
        }
    })
}

fn answer(file: &file::Model, size: u64, body: Body) -> Response {
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
