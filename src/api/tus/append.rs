//! PATCH, HEAD and DELETE.

use super::{
    answer::{appended, described},
    call::Call,
    create::OFFSET_STREAM,
    headers::{UPLOAD_LENGTH, UPLOAD_OFFSET},
    refuse,
};
use crate::api::problem::{Code, Problem};
use http::StatusCode;
use landfall_core::uploads::{self, Append};
use poem::Response;

pub(super) async fn append(mut call: Call) -> Result<Response, Problem> {
    let id = call.id()?;
    if call.media_type() != OFFSET_STREAM {
        return Err(Problem::new(
            Code::UnsupportedMediaType,
            "bytes are sent with the Content-Type application/offset+octet-stream",
        ));
    }
    let offset = call
        .size(&UPLOAD_OFFSET)?
        .ok_or_else(|| Problem::field(Code::MalformedRequest, "Upload-Offset", "is missing"))?;
    let append = Append {
        offset,
        length: call.size(&UPLOAD_LENGTH)?,
        content_length: call.content_length(),
        checksum: call.checksum()?,
        last: false,
    };
    let upload = call.append(id, append).await.map_err(refuse::problem)?;
    Ok(appended(&upload))
}

pub(super) async fn look(call: Call) -> Result<Response, Problem> {
    Ok(described(&call.upload().await?))
}

pub(super) async fn terminate(call: Call) -> Result<Response, Problem> {
    let id = call.upload().await?.id;
    uploads::abort(&call.app, &call.caller.sees(), id)
        .await
        .map_err(refuse::problem)?;
    Ok(Response::builder().status(StatusCode::NO_CONTENT).finish())
}
