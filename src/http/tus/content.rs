//! GET: the bytes of a complete upload, from staging or from storage, wherever they are by now.

use super::{
    call::{Call, value},
    refuse,
};
use crate::http::{
    disposition::attachment,
    problem::{Code, Problem},
};
use entity::{
    file::{self, FileStatus},
    upload::{Model, UploadKind, UploadStatus},
};
use futures::TryStreamExt;
use http::{HeaderValue, StatusCode, header};
use landfall_core::{files, storage::StorageKey, uploads};
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
        let staged = uploads::staged(&call.landfall, &upload).await;
        if let Some((size, bytes)) = staged.map_err(refuse::problem)? {
            return Ok(answer(
                &file,
                size,
                Body::from_bytes_stream(bytes.map_err(io::Error::other)),
            ));
        }
        let now = file_of(&call, &upload).await?;
        if let (FileStatus::Stored, Some(key)) = (now.status, now.storage_key.as_deref()) {
            let key: StorageKey = key.parse()?;
            let bytes = call.landfall.storage.read(&key, None).await?;
            let body = Body::from_bytes_stream(bytes.map_err(io::Error::other));
            return Ok(answer(&file, now.size_bytes.unsigned_abs(), body));
        }
        if matches!(now.status, FileStatus::Failed | FileStatus::Deleted) {
            break;
        }
    }
    Err(Problem::new(
        Code::UploadGone,
        "the bytes of the upload are not kept any more",
    ))
}

async fn file_of(call: &Call, upload: &Model) -> Result<file::Model, Problem> {
    let db = call.landfall.db.read();
    let found = files::get(db, &call.caller.sees(), upload.file_id).await?;
    found.ok_or_else(|| Problem::not_found("file"))
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
