//! `POST /v1/files`: determines the kind of upload, and handles it.

use super::{
    multipart,
    raw_body::{self, QueryFields, ReceivedFile},
    staged_body::{self, StagedFile},
};
use crate::api::{
    idempotency::{IdempotencyOutcome, IdempotentRequest, execute_once},
    problem::{Code, Problem},
    response::JsonResponse,
    schema,
    state::ApiState,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use entity::{FileId, file};
use futures::{Stream, StreamExt};
use http::{HeaderMap, header};
use landfall_core::{
    digest::Sha256Digest,
    quota,
    tokens::Identity,
    upload_links::{LinkUse, UploadLink},
};
use poem::{Request, RequestBody, Result};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaMediaType, MetaRequest, MetaSchema, MetaSchemaRef, Registry},
};
use sha2::{Digest, Sha256};
use std::{fmt, io, pin::Pin};

/// A request with a file.
pub(in crate::api) struct UploadRequest {
    pub(super) headers: HeaderMap,
    pub(super) body: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>,
}

impl fmt::Debug for UploadRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").finish_non_exhaustive()
    }
}

impl<'a> ApiExtractor<'a> for UploadRequest {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

    type ParamType = ();
    type ParamRawType = ();

    fn register(_: &mut Registry) {}

    fn request_meta() -> Option<MetaRequest> {
        let media = |content_type, schema| MetaMediaType {
            content_type,
            schema: MetaSchemaRef::Inline(Box::new(schema)),
        };
        Some(MetaRequest {
            description: Some("One file, as a form or as the raw body."),
            content: vec![
                media("multipart/form-data", form_schema()),
                media(
                    "application/octet-stream",
                    MetaSchema::new_with_format("string", "binary"),
                ),
            ],
            required: true,
        })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> Result<Self> {
        Ok(Self {
            headers: request.headers().clone(),
            body: body.take()?.into_bytes_stream().boxed(),
        })
    }
}

fn form_schema() -> MetaSchema {
    let described = |format, description| {
        let schema = MetaSchema {
            format,
            description: Some(description),
            ..MetaSchema::new("string")
        };
        MetaSchemaRef::Inline(Box::new(schema))
    };
    MetaSchema {
        required: vec!["file"],
        properties: vec![
            (
                "file",
                described(Some("binary"), "The file, with its name."),
            ),
            (
                "metadata",
                described(None, "A JSON object of up to 16 KiB."),
            ),
            (
                "batch_id",
                described(Some("uuid"), "The open batch to add the file to."),
            ),
            (
                "sha256",
                described(None, "The expected SHA-256 of the file, in hexadecimal."),
            ),
            (
                "expires_in",
                described(None, "Seconds after which the file is deleted."),
            ),
        ],
        ..MetaSchema::new("object")
    }
}

impl UploadRequest {
    pub(in crate::api) fn content_type(&self) -> Result<Option<&str>, Problem> {
        let value = self.headers.get(header::CONTENT_TYPE);
        let text = value.map(|value| value.to_str()).transpose();
        text.map_err(|_| {
            Problem::new(
                Code::UnsupportedMediaType,
                "The content type must be ASCII.",
            )
        })
    }

    /// The declared length, in bytes.
    pub(super) fn length(&self) -> Result<Option<u64>, Problem> {
        let value = self.headers.get(header::CONTENT_LENGTH);
        Ok(value.and_then(|value| value.to_str().ok()?.parse().ok()))
    }

    /// Whether the request has no body.
    pub(super) fn is_bare(&self) -> Result<bool, Problem> {
        let chunked = self.headers.contains_key(header::TRANSFER_ENCODING);
        Ok(!chunked && self.length()?.unwrap_or(0) == 0)
    }

    /// Rejects a body whose declared length exceeds `max`; `limit` is the maximum size of a file.
    pub(super) fn refuse_larger_than(&self, max: u64, limit: u64) -> Result<(), Problem> {
        match self.length()? {
            Some(length) if length > max => Err(Problem::new(
                Code::TooLarge,
                format!("Files must be at most {limit} bytes."),
            )),
            _ => Ok(()),
        }
    }
}

/// Returns the SHA-256 in `Content-Digest` or `Repr-Digest` (RFC 9530), if there is one.
pub(in crate::api) fn declared(headers: &HeaderMap) -> Result<Option<Sha256Digest>, Problem> {
    let mut found = None;
    for name in ["content-digest", "repr-digest"] {
        for value in headers.get_all(name) {
            let text = value.to_str().unwrap_or("?");
            for member in text.split(',') {
                let Some((algorithm, bytes)) = member.trim().split_once('=') else {
                    return Err(no_digest(name));
                };
                if !algorithm.eq_ignore_ascii_case("sha-256") {
                    continue;
                }
                let digest = decode(bytes).ok_or_else(|| no_digest(name))?;
                if found.is_some_and(|found| found != digest) {
                    return Err(Problem::field(
                        Code::DigestMismatch,
                        name,
                        "differs from the other digest of the same bytes",
                    ));
                }
                found = Some(digest);
            }
        }
    }
    Ok(found)
}

/// Parses a byte sequence (RFC 9651, section 3.3.5), with or without parameters.
fn decode(item: &str) -> Option<Sha256Digest> {
    let (bytes, _) = item.trim().strip_prefix(':')?.split_once(':')?;
    let bytes = STANDARD.decode(bytes).ok()?;
    Some(Sha256Digest(bytes.try_into().ok()?))
}

fn no_digest(header: &str) -> Problem {
    let allowed = "must have the form sha-256=:<base64 of 32 bytes>: (RFC 9530)";
    Problem::field(Code::MalformedRequest, header, allowed)
}

/// Receives the file and returns 202 once its bytes are durable and its row is committed. For a file sent by an upload
/// link, the state has the limits of the link.
pub(in crate::api) async fn receive(
    state: &ApiState,
    caller: &Identity,
    link: Option<&UploadLink>,
    idempotent: &IdempotentRequest,
    upload: UploadRequest,
    given: QueryFields,
    traceparent: Option<String>,
) -> Result<JsonResponse<schema::File, 202>, Problem> {
    let outcome = idempotent.acquire(state, caller).await?;
    if let IdempotencyOutcome::Execute(_) = &outcome {
        // Not before: a repeated request gets the first response, although it has used the link up.
        if let Some(link) = link {
            link.require_unused()?;
        }
        refuse_beyond_quota(state, caller, upload.length()?).await?;
    }
    let mut received = arrive(state, caller, upload, given).await?;
    if let Some(link) = link {
        received.fields.belong_to(link);
    }
    let lock = match outcome {
        IdempotencyOutcome::Replay(prior) => {
            return prior.replay(&fingerprint(idempotent, &received));
        }
        IdempotencyOutcome::Execute(lock) => lock,
    };
    let fingerprint = fingerprint(idempotent, &received);
    let ReceivedFile {
        name,
        content_type,
        fields,
        bytes,
    } = received;
    let complete = StagedFile {
        id: FileId(bytes.key().owner()),
        owner: caller.owner.clone(),
        name,
        content_type,
        fields,
        bytes,
        traceparent,
        link: link.map(|link| LinkUse(link.id)),
    };
    landfall_core::failpoint!("request.received");
    let state = state.clone();
    execute_once(lock, fingerprint, accepted, async move |keep| {
        staged_body::commit(&state, complete, keep).await
    })
    .await
}

/// An accepted file is not stored yet, and has no URL.
fn accepted(row: &file::Model) -> Result<JsonResponse<schema::File, 202>, Problem> {
    let location = format!("/v1/files/{}", row.id);
    JsonResponse::new(&schema::File::from_row(row.clone(), None))?.with(header::LOCATION, &location)
}

/// Rejects a body whose declared length exceeds the owner's quota, before it is sent.
async fn refuse_beyond_quota(
    state: &ApiState,
    caller: &Identity,
    length: Option<u64>,
) -> Result<(), Problem> {
    let app = &state.app;
    // The length of a form includes more than the file.
    let at_least = length
        .unwrap_or(0)
        .saturating_sub(multipart::MAX_FORM_OVERHEAD);
    let (owner, quota) = (caller.owner.as_deref(), app.config.uploads.owner_quota);
    Ok(quota::require_room(app.db.read(), owner, at_least, quota).await?)
}

async fn arrive(
    state: &ApiState,
    caller: &Identity,
    upload: UploadRequest,
    given: QueryFields,
) -> Result<ReceivedFile, Problem> {
    let digest = declared(&upload.headers)?;
    let content_type = upload.content_type()?.unwrap_or("").to_owned();
    let essence = content_type.split(';').next().unwrap_or("").trim();
    let essence = essence.to_ascii_lowercase();
    if essence == "multipart/form-data" {
        let boundary = multipart::boundary(&content_type)?;
        return multipart::receive(state, caller, upload, boundary, digest).await;
    }
    if essence.starts_with("multipart/") {
        return Err(Problem::new(
            Code::UnsupportedMediaType,
            "multipart/form-data is the only supported multipart type.",
        ));
    }
    raw_body::receive(state, caller, upload, given, digest).await
}

/// The fingerprint of an upload. Excludes the form's boundary, which differs each time.
fn fingerprint(idempotent: &IdempotentRequest, received: &ReceivedFile) -> String {
    let mut hasher = Sha256::new();
    let fields = &received.fields;
    for part in [
        received.name.as_str(),
        &received.content_type,
        &format!("{:?}", fields.metadata),
        &format!("{:?} {:?}", fields.batch_id, fields.expires_in),
        &received.bytes.sha256.to_string(),
    ] {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    idempotent.fingerprint(Sha256Digest::from_hasher(hasher))
}
