//! POST: creation, with or without bytes, and concatenation.

use super::{
    answer::{created, with_progress},
    call::Call,
    concat::{self, Concat},
    headers::{self, UPLOAD_CONCAT, UPLOAD_DEFER_LENGTH, UPLOAD_LENGTH},
    metadata::{self, Metadata},
    refuse,
};
use crate::api::problem::{Code, Problem};
use entity::{BatchId, upload::Model};
use landfall_core::{
    files::FileName,
    uploads::{self, Append, NewUpload, UploadError, UploadShape},
};
use poem::Response;

/// The type of a body that carries bytes of the upload.
pub(super) const OFFSET_STREAM: &str = "application/offset+octet-stream";

/// The name of a file whose client gives none.
const UNNAMED: &str = "unnamed";

pub(super) async fn create(mut call: Call) -> Result<Response, Problem> {
    let concat = concat_of(&call)?;
    let new = new_upload(&call, None, None)?;
    if let Some(Concat::Final(partials)) = concat {
        if call.headers.contains_key(UPLOAD_LENGTH)
            || call.headers.contains_key(UPLOAD_DEFER_LENGTH)
        {
            return Err(Problem::new(
                Code::MalformedRequest,
                "the length of a final upload is the sum of its partial uploads; do not send Upload-Length",
            ));
        }
        if call.has_body() {
            return Err(Problem::new(
                Code::Forbidden,
                "a final upload accepts no bytes of its own",
            ));
        }
        let joined = uploads::concatenate(&call.app, &call.caller.sees(), partials, new).await;
        return Ok(created(&joined.map_err(refuse::problem)?));
    }
    let total = length_of(&call)?;
    let append = append_of(&call, total)?;
    let shape = match concat {
        Some(_) => UploadShape::Partial { total },
        None => UploadShape::Append { total },
    };
    let upload = uploads::create(&call.app, shape, new, None).await;
    let upload = upload.map_err(refuse::problem)?;
    match append {
        Some(append) if upload.total_size_bytes != Some(0) => {
            take_first(&mut call, upload, append).await
        }
        Some(_) => Ok(with_progress(created(&upload), &upload)),
        None => Ok(created(&upload)),
    }
}

fn concat_of(call: &Call) -> Result<Option<Concat>, Problem> {
    let text = call.text(&UPLOAD_CONCAT)?;
    text.map(concat::parse)
        .transpose()
        .map_err(|error| Problem::field(Code::MalformedRequest, "Upload-Concat", error.to_string()))
}

/// The length, or none when it is deferred; one of both there must be.
fn length_of(call: &Call) -> Result<Option<u64>, Problem> {
    let length = call.size(&UPLOAD_LENGTH)?;
    let refuse = |why: &'static str| Err(Problem::new(Code::MalformedRequest, why));
    match (length, call.text(&UPLOAD_DEFER_LENGTH)?) {
        (Some(length), None) => Ok(Some(length)),
        (None, Some("1")) => Ok(None),
        (None, Some(_)) => refuse("Upload-Defer-Length must be 1"),
        (None, None) => refuse("send Upload-Length, or Upload-Defer-Length: 1"),
        (Some(_), Some(_)) => refuse("send Upload-Length or Upload-Defer-Length, not both"),
    }
}

/// What the bytes of a creation are appended with, if it has any.
fn append_of(call: &Call, total: Option<u64>) -> Result<Option<Append>, Problem> {
    let has_type = call.media_type() == OFFSET_STREAM;
    if !call.has_body() && !has_type {
        return Ok(None);
    }
    if !has_type {
        return Err(Problem::new(
            Code::UnsupportedMediaType,
            "a creation with bytes has the Content-Type application/offset+octet-stream",
        ));
    }
    let content_length = call.content_length();
    if let (Some(total), Some(length)) = (total, content_length)
        && length > total
    {
        return Err(Problem::new(
            Code::TooLarge,
            "the body is longer than Upload-Length",
        ));
    }
    Ok(Some(Append {
        content_length,
        checksum: call.checksum()?,
        ..Append::default()
    }))
}

/// Takes the bytes of a creation. The upload is there whatever becomes of them, so all but a checksum that does not
/// match and a type that is not taken in is answered by how far they came.
async fn take_first(call: &mut Call, upload: Model, append: Append) -> Result<Response, Problem> {
    let id = upload.id;
    let upload = match call.append(id, append).await {
        Ok(upload) => upload,
        Err(error @ (UploadError::ChecksumMismatch | UploadError::NotAllowed(_))) => {
            // Its client does not learn where it is, so nobody could go on with it.
            uploads::abort(&call.app, &call.caller.sees(), id)
                .await
                .map_err(refuse::problem)?;
            return Err(refuse::problem(error));
        }
        Err(UploadError::BrokenOff(_) | UploadError::Stalled | UploadError::Staging(_)) => {
            call.upload().await?
        }
        Err(error) => return Err(refuse::problem(error)),
    };
    Ok(with_progress(created(&upload), &upload))
}

/// What is said of the file: by `Upload-Metadata`, or else by what its protocol has for it.
pub(super) fn new_upload(
    call: &Call,
    named: Option<String>,
    typed: Option<String>,
) -> Result<NewUpload, Problem> {
    let sent = headers::metadata(&call.headers)?;
    let Metadata {
        filename,
        filetype,
        batch_id,
        rest,
    } = metadata::parse(sent.as_deref().unwrap_or_default()).map_err(|error| {
        Problem::field(Code::InvalidMetadata, "Upload-Metadata", error.to_string())
    })?;
    let batch_id = batch_id
        .map(|text| text.parse::<BatchId>())
        .transpose()
        .map_err(|_| {
            Problem::field(
                Code::InvalidMetadata,
                "Upload-Metadata",
                "batch_id is not the id of a batch",
            )
        })?;
    let name = filename.or(named);
    Ok(NewUpload {
        owner: call.caller.owner.clone(),
        original_filename: FileName::parse(name.as_deref().unwrap_or(UNNAMED))?,
        content_type: content_type(filetype.or(typed)),
        declared_sha256: None,
        metadata: rest.into(),
        batch_id,
        expires_in: call.app.config.files.default_ttl,
        traceparent: call.traceparent.clone(),
        tus_metadata: sent,
        tus_concat: call.text(&UPLOAD_CONCAT)?.map(str::to_owned),
    })
}

/// What the client says, if it is a media type at all.
fn content_type(said: Option<String>) -> String {
    let fits = |text: &String| {
        text.len() <= 255
            && text.contains('/')
            && text
                .bytes()
                .all(|byte| byte.is_ascii_graphic() || byte == b' ')
    };
    said.filter(fits)
        .unwrap_or_else(|| "application/octet-stream".to_owned())
}
