//! POST: creation, with or without bytes, and concatenation.

use super::{
    concat::{self, Concat},
    error,
    headers::{self, UPLOAD_CONCAT, UPLOAD_DEFER_LENGTH, UPLOAD_LENGTH},
    metadata::{self, UploadMetadata},
    request::TusRequest,
    response::{created, with_progress},
};
use crate::api::problem::{Code, Problem};
use entity::{BatchId, UploadId, upload::Model};
use landfall_core::{
    files::FileName,
    upload_links::{self, LinkUse},
    uploads::{self, Append, NewUpload, UploadError, UploadShape},
};
use poem::Response;

/// The media type of a body with bytes of the upload.
pub(super) const OFFSET_STREAM: &str = "application/offset+octet-stream";

/// The name of a file without a client-supplied name.
const UNNAMED: &str = "unnamed";

pub(super) async fn create(mut request: TusRequest) -> Result<Response, Problem> {
    let concat = concat_of(&request)?;
    let new = new_upload(&request, None, None)?;
    if let Some(Concat::Final(partials)) = concat {
        if request.headers.contains_key(UPLOAD_LENGTH)
            || request.headers.contains_key(UPLOAD_DEFER_LENGTH)
        {
            return Err(Problem::new(
                Code::MalformedRequest,
                "the length of a final upload is the sum of its partial uploads; do not send Upload-Length",
            ));
        }
        if request.has_body() {
            return Err(Problem::new(
                Code::Forbidden,
                "a final upload accepts no bytes of its own",
            ));
        }
        require_own_partials(&request, &partials).await?;
        let joined =
            uploads::concatenate(&request.app, &request.caller.sees(), partials, new).await;
        return Ok(created(&request, &joined.map_err(error::problem)?));
    }
    let total = length_of(&request)?;
    let append = append_of(&request, total)?;
    let shape = match concat {
        Some(_) => UploadShape::Partial { total },
        None => UploadShape::Append { total },
    };
    let upload = uploads::create(&request.app, shape, new, None).await;
    let upload = upload.map_err(error::problem)?;
    match append {
        Some(append) if upload.total_size_bytes != Some(0) => {
            append_first_bytes(&mut request, upload, append).await
        }
        Some(_) => Ok(with_progress(created(&request, &upload), &upload)),
        None => Ok(created(&request, &upload)),
    }
}

fn concat_of(request: &TusRequest) -> Result<Option<Concat>, Problem> {
    let text = request.text(&UPLOAD_CONCAT)?;
    text.map(|text| concat::parse(text, &request.base))
        .transpose()
        .map_err(|error| Problem::field(Code::MalformedRequest, "Upload-Concat", error.to_string()))
}

/// An upload link concatenates its own partial uploads only; others do not exist for it.
async fn require_own_partials(request: &TusRequest, partials: &[UploadId]) -> Result<(), Problem> {
    let Some(link) = &request.link else {
        return Ok(());
    };
    let db = request.app.db.read();
    if partials.len() > uploads::MAX_PARTIALS || upload_links::covers(db, link.id, partials).await?
    {
        return Ok(());
    }
    let unknown = UploadError::CannotJoin("one of the partial uploads is not there".to_owned());
    Err(error::problem(unknown))
}

/// Returns the length, or `None` if it is deferred. One of the two headers is required.
fn length_of(request: &TusRequest) -> Result<Option<u64>, Problem> {
    let length = request.size(&UPLOAD_LENGTH)?;
    let refuse = |why: &'static str| Err(Problem::new(Code::MalformedRequest, why));
    match (length, request.text(&UPLOAD_DEFER_LENGTH)?) {
        (Some(length), None) => Ok(Some(length)),
        (None, Some("1")) => Ok(None),
        (None, Some(_)) => refuse("Upload-Defer-Length must be 1"),
        (None, None) => refuse("send Upload-Length, or Upload-Defer-Length: 1"),
        (Some(_), Some(_)) => refuse("send Upload-Length or Upload-Defer-Length, not both"),
    }
}

/// Returns the append for the bytes in a creation request, if it has any.
fn append_of(request: &TusRequest, total: Option<u64>) -> Result<Option<Append>, Problem> {
    let has_type = request.media_type() == OFFSET_STREAM;
    if !request.has_body() && !has_type {
        return Ok(None);
    }
    if !has_type {
        return Err(Problem::new(
            Code::UnsupportedMediaType,
            "a creation with bytes must have the Content-Type application/offset+octet-stream",
        ));
    }
    let content_length = request.content_length();
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
        checksum: request.checksum()?,
        ..Append::default()
    }))
}

/// Appends the bytes of a creation request. The upload exists whether or not this succeeds, so every outcome except a
/// checksum mismatch and a rejected type is answered with the current offset.
async fn append_first_bytes(
    request: &mut TusRequest,
    upload: Model,
    append: Append,
) -> Result<Response, Problem> {
    let id = upload.id;
    let upload = match request.append(id, append).await {
        Ok(upload) => upload,
        Err(error @ (UploadError::ChecksumMismatch | UploadError::NotAllowed(_))) => {
            // The client does not learn the location, so it could not resume this upload.
            uploads::abort(&request.app, &request.caller.sees(), id)
                .await
                .map_err(error::problem)?;
            return Err(error::problem(error));
        }
        Err(UploadError::BrokenOff(_) | UploadError::Stalled | UploadError::Staging(_)) => {
            request.upload().await?
        }
        Err(error) => return Err(error::problem(error)),
    };
    Ok(with_progress(created(request, &upload), &upload))
}

/// Returns the new upload, from `Upload-Metadata` or the protocol's own headers.
pub(super) fn new_upload(
    request: &TusRequest,
    named: Option<String>,
    typed: Option<String>,
) -> Result<NewUpload, Problem> {
    let sent = headers::metadata(&request.headers)?;
    let UploadMetadata {
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
                "batch_id must be the id of a batch",
            )
        })?;
    let name = filename.or(named);
    let (metadata, batch_id) = match &request.link {
        Some(link) => {
            let metadata = upload_links::link_metadata(link, Some(rest.into()));
            (metadata, link.batch_id)
        }
        None => (rest.into(), batch_id),
    };
    Ok(NewUpload {
        owner: request.caller.owner.clone(),
        original_filename: FileName::parse(name.as_deref().unwrap_or(UNNAMED))?,
        content_type: content_type(filetype.or(typed)),
        declared_sha256: None,
        metadata,
        batch_id,
        expires_in: request.app.config.files.default_ttl,
        traceparent: request.traceparent.clone(),
        tus_metadata: sent,
        tus_concat: request.text(&UPLOAD_CONCAT)?.map(str::to_owned),
        link: request.link.as_ref().map(|link| LinkUse(link.id)),
    })
}

/// Returns the declared media type, if it is valid.
fn content_type(declared: Option<String>) -> String {
    let fits = |text: &String| {
        text.len() <= 255
            && text.contains('/')
            && text
                .bytes()
                .all(|byte| byte.is_ascii_graphic() || byte == b' ')
    };
    declared
        .filter(fits)
        .unwrap_or_else(|| "application/octet-stream".to_owned())
}
