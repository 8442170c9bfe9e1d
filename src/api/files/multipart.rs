//! Receives a file as a part of `multipart/form-data` (RFC 7578).
//!
//! Memory is bounded for any input: the bytes of the file are streamed, each text field has a maximum length and may
//! appear once, and everything else (part headers, the preamble) is limited too.

use super::{
    raw_body::ReceivedFile,
    staged_body::{self, StagedBody},
    upload::{UploadRequest, declared},
    upload_fields::{self, UploadFields},
};
use crate::api::{
    content_disposition::{Disposition, unquoted},
    problem::{Code, Problem},
    state::ApiState,
};
use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{HeaderMap, header};
use landfall_core::{
    digest::Sha256Digest,
    files::FileName,
    media_policy::{self, ContentGuard, DeclaredContent},
    tokens::Identity,
};
use multer::{Field, Multipart};
use sha2::{Digest, Sha256};
use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

/// Maximum size of a form besides the file, in bytes: text fields, part headers, boundaries.
pub(super) const MAX_FORM_OVERHEAD: u64 = 1024 * 1024;

/// Maximum length of a boundary (RFC 2046, section 5.1.1).
const MAX_BOUNDARY_LEN: usize = 70;

/// The form exceeds [`MAX_FORM_OVERHEAD`].
#[derive(Clone, Debug, thiserror::Error)]
#[error("the form has more than {MAX_FORM_OVERHEAD} bytes besides its file")]
pub(crate) struct FormError;

impl FormError {
    /// Converts the error to its response.
    #[must_use]
    pub(crate) fn to_problem(&self) -> Problem {
        Problem::new(Code::TooLarge, format!("{self}."))
    }
}

/// Receives the form's file. Fields before the file can reject it before it is read.
pub(super) async fn receive(
    state: &ApiState,
    caller: &Identity,
    upload: UploadRequest,
    boundary: String,
    digest: Option<Sha256Digest>,
) -> Result<ReceivedFile, Problem> {
    let limit = state.app.config.uploads.max_file_size.0;
    upload.refuse_larger_than(limit.saturating_add(MAX_FORM_OVERHEAD), limit)?;
    let encodes_names = encodes_names(&upload.headers);
    let source = FormStream::new(upload.body, digest.is_some());
    let mut form = Multipart::new(source.clone(), boundary);
    let mut fields = UploadFields::default();
    let mut file: Option<(FileName, String, StagedBody)> = None;
    // The next call skips what was not read of a part.
    while let Some(field) = form.next_field().await.map_err(|error| refused(&error))? {
        let disposition = field.headers().get(header::CONTENT_DISPOSITION);
        let disposition = disposition
            .map(|value| Disposition::parse(value.as_bytes(), true))
            .unwrap_or_default();
        match disposition.name.as_deref() {
            Some("file") if file.is_some() => {
                return Err(Problem::new(
                    Code::TooManyFiles,
                    "The form has more than one `file` part. Send one file per request.",
                ));
            }
            Some("file") => {
                let named = disposition.filename.map(|name| match encodes_names {
                    true => unquoted(&name),
                    false => name,
                });
                let name = upload_fields::name(named.as_deref())?;
                file = Some(receive_file(state, caller, &source, field, name).await?);
            }
            Some(name) if UploadFields::NAMES.contains(&name) => {
                let value = text(&source, field, name).await?;
                fields.set(name, &value)?;
            }
            // Upload widgets add fields for their own servers; these are ignored.
            Some(_) => {}
            None => {
                return Err(Problem::new(
                    Code::MalformedRequest,
                    "A form part has no name.",
                ));
            }
        }
    }
    drop(form);
    source.check(digest).await?;
    let Some((name, content_type, bytes)) = file else {
        return Err(Problem::new(
            Code::MissingFile,
            "The form has no `file` part.",
        ));
    };
    bytes.verify(fields.sha256)?;
    Ok(ReceivedFile {
        name,
        content_type,
        fields,
        bytes,
    })
}

async fn receive_file(
    state: &ApiState,
    caller: &Identity,
    source: &FormStream,
    field: Field<'_>,
    name: FileName,
) -> Result<(FileName, String, StagedBody), Problem> {
    require_plain(field.headers())?;
    let given = field.headers().get(header::CONTENT_TYPE);
    let given = given.map(|value| value.to_str().unwrap_or("?"));
    let content_type = upload_fields::content_type(given)?;
    let lists = &state.app.config.uploads;
    media_policy::require_declared(lists, name.as_str(), &content_type)?;
    let own = declared(field.headers())?;
    let fields = DeclaredContent {
        name: name.as_str().to_owned(),
        content_type,
    };
    let guard = ContentGuard::new(lists, fields, None, true, Vec::new());
    let passing = guard.watch(field.inspect(|_| source.passed()));
    let bytes = staged_body::stage(state, caller, passing, None).await?;
    bytes.verify(own)?;
    Ok((name, guard.verdict()?, bytes))
}

/// Whether the client percent-encodes complete names without declaring it (aiohttp). Only its User-Agent tells its
/// `a%20b` from another client's.
fn encodes_names(headers: &HeaderMap) -> bool {
    let agent = headers.get(header::USER_AGENT);
    let agent = agent.and_then(|agent| agent.to_str().ok());
    agent.is_some_and(|agent| agent.contains("aiohttp/"))
}

/// A part with a content encoding is rejected, because it would be stored encoded (RFC 7578, section 4.7, deprecates
/// such parts).
fn require_plain(headers: &HeaderMap) -> Result<(), Problem> {
    let encoded = |name: &str, plain: &[&str]| {
        let values = headers.get_all(name).iter();
        let mut texts = values.map(|value| value.to_str().unwrap_or("?").trim());
        texts.any(|text| !plain.iter().any(|plain| text.eq_ignore_ascii_case(plain)))
    };
    let is_encoded = encoded("content-encoding", &["identity"])
        || encoded("content-transfer-encoding", &["binary", "8bit", "7bit"]);
    if !is_encoded {
        return Ok(());
    }
    Err(Problem::new(
        Code::UnsupportedMediaType,
        "Encoded parts are not supported. Send the bytes unencoded.",
    ))
}

async fn text(source: &FormStream, mut field: Field<'_>, name: &str) -> Result<String, Problem> {
    let mut bytes = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(|error| refused(&error))? {
        if bytes.len() + chunk.len() > UploadFields::limit(name) {
            return Err(upload_fields::too_long(name));
        }
        bytes.extend_from_slice(&chunk);
    }
    source.passed();
    String::from_utf8(bytes)
        .map_err(|_| Problem::field(Code::MalformedRequest, name, "must be UTF-8"))
}

fn refused(error: &multer::Error) -> Problem {
    match error {
        multer::Error::StreamReadFailed(cause) => {
            crate::api::connection::body::interrupted(cause.as_ref())
        }
        // The name is the only free text in the headers.
        multer::Error::ReadHeaderFailed(httparse::Error::HeaderValue) => Problem::field(
            Code::InvalidName,
            "filename",
            "the part headers contain a control character; only printable text is allowed",
        ),
        other => Problem::new(
            Code::MalformedRequest,
            format!("The form is not valid multipart/form-data (RFC 7578): {other}."),
        ),
    }
}

/// Returns the boundary of a form.
pub(super) fn boundary(content_type: &str) -> Result<String, Problem> {
    let boundary = multer::parse_boundary(content_type).ok();
    boundary
        .filter(|boundary| (1..=MAX_BOUNDARY_LEN).contains(&boundary.len()))
        .ok_or_else(|| {
            Problem::new(
                Code::MalformedRequest,
                "`Content-Type: multipart/form-data` needs a boundary of 1 to 70 characters.",
            )
        })
}

/// The body of a form, passed to the parser one chunk at a time, because it buffers everything it can get.
#[derive(Clone)]
struct FormStream(Arc<Mutex<FormBody>>);

struct FormBody {
    bytes: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>,
    /// Whether the last call returned a chunk, so that this one makes the parser process it.
    given: bool,
    /// Bytes passed to the parser since it last returned anything useful.
    pending: u64,
    hasher: Option<Sha256>,
}

impl FormStream {
    fn new(bytes: impl Stream<Item = io::Result<Bytes>> + Send + 'static, hash: bool) -> Self {
        Self(Arc::new(Mutex::new(FormBody {
            bytes: Box::pin(bytes),
            given: false,
            pending: 0,
            hasher: hash.then(Sha256::new),
        })))
    }

    /// Records that the parser has returned what it was given.
    fn passed(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pending = 0;
    }

    /// Compares the digest of the whole body with the one in the request headers.
    async fn check(mut self, declared: Option<Sha256Digest>) -> Result<(), Problem> {
        let Some(declared) = declared else {
            return Ok(());
        };
        while let Some(piece) = self.next().await {
            piece.map_err(|error| crate::api::connection::body::interrupted(&error))?;
        }
        let hasher = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .hasher
            .take();
        let found = hasher.map(Sha256Digest::from_hasher);
        if found == Some(declared) {
            return Ok(());
        }
        Err(Problem::new(
            Code::DigestMismatch,
            "The body does not match the digest in the headers (RFC 9530: the digest covers the whole form).",
        ))
    }
}

impl Stream for FormStream {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut body = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut body.given) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let piece = std::task::ready!(body.bytes.poll_next_unpin(cx));
        let Some(Ok(bytes)) = piece else {
            return Poll::Ready(piece);
        };
        body.given = true;
        body.pending += bytes.len() as u64;
        if let Some(hasher) = &mut body.hasher {
            hasher.update(&bytes);
        }
        match body.pending > MAX_FORM_OVERHEAD {
            true => Poll::Ready(Some(Err(io::Error::other(FormError)))),
            false => Poll::Ready(Some(Ok(bytes))),
        }
    }
}
