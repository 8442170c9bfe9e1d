//! PATCH, HEAD and DELETE.

use super::{
    create::OFFSET_STREAM,
    error,
    headers::{UPLOAD_LENGTH, UPLOAD_OFFSET},
    request::TusRequest,
    response::{appended, described},
};
use crate::api::problem::{Code, Problem};
use entity::upload::{UploadKind, UploadStatus};
use http::StatusCode;
use landfall_core::uploads::{self, Append};
use poem::Response;

pub(super) async fn append(mut request: TusRequest) -> Result<Response, Problem> {
    let id = request.id()?;
    if request.media_type() != OFFSET_STREAM {
        return Err(Problem::new(
            Code::UnsupportedMediaType,
            "the Content-Type must be application/offset+octet-stream",
        ));
    }
    let offset = request
        .size(&UPLOAD_OFFSET)?
        .ok_or_else(|| Problem::field(Code::MalformedRequest, "Upload-Offset", "is missing"))?;
    let append = Append {
        offset,
        length: request.size(&UPLOAD_LENGTH)?,
        content_length: request.content_length(),
        checksum: request.checksum()?,
        last: false,
    };
    let upload = request.append(id, append).await.map_err(error::problem)?;
    Ok(appended(&upload))
}

pub(super) async fn head(request: TusRequest) -> Result<Response, Problem> {
    Ok(described(&request.upload().await?))
}

pub(super) async fn terminate(request: TusRequest) -> Result<Response, Problem> {
    let upload = request.upload().await?;
    let id = upload.id;
    if request.link.is_some()
        && upload.status == UploadStatus::Complete
        && upload.kind != UploadKind::Partial
    {
        return Err(Problem::new(
            Code::Forbidden,
            "the upload is complete; an upload link cannot delete its file",
        ));
    }
    uploads::abort(&request.app, &request.caller.sees(), id)
        .await
        .map_err(error::problem)?;
    Ok(Response::builder().status(StatusCode::NO_CONTENT).finish())
}
