//! The file as a part of `multipart/form-data` (RFC 7578).
//!
//! Memory is bounded whatever is sent: the file's bytes pass through, text fields have a limit each and come once,
//! and what belongs to neither (headers of parts, the preamble) has a limit too.

use super::{
    raw_body::Arrived,
    staged_body::{self, StagedBytes},
    upload::{Upload, declared},
    upload_fields::{self, Said},
};
use crate::api::{
    content_disposition::{Disposition, unquoted},
    problem::{Code, Problem},
    state::State,
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

/// What a form may have besides the file, in bytes: text fields, headers of parts, boundaries.
pub(super) const BESIDES: u64 = 1024 * 1024;

/// The longest boundary (RFC 2046, section 5.1.1).
const LONGEST_BOUNDARY: usize = 70;

/// A form that is not as RFC 7578 has it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the form has more than {BESIDES} bytes besides its file")]
pub(crate) struct FormError;

impl FormError {
    /// As it is answered.
    #[must_use]
    pub(crate) fn to_problem(&self) -> Problem {
        Problem::new(Code::TooLarge, format!("{self}."))
    }
}

/// Takes in the form's one file. Fields that come before the file can refuse it before it is read.
pub(super) async fn take_in(
    state: &State,
    caller: &Identity,
    upload: Upload,
    boundary: String,
    digest: Option<Sha256Digest>,
) -> Result<Arrived, Problem> {
    let limit = state.app.config.uploads.max_file_size.0;
    upload.refuse_larger_than(limit.saturating_add(BESIDES), limit)?;
    let encodes_names = encodes_names(&upload.headers);
    let source = Source::new(upload.body, digest.is_some());
    let mut form = Multipart::new(source.clone(), boundary);
    let mut said = Said::default();
    let mut file: Option<(FileName, String, StagedBytes)> = None;
    // What is not read of a part is passed over by the next call.
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
                file = Some(take_file(state, caller, &source, field, name).await?);
            }
            Some(name) if Said::NAMES.contains(&name) => {
                let value = text(&source, field, name).await?;
                said.take(name, &value)?;
            }
            // Widgets add fields of their own; what they are for is known to their own servers.
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
    bytes.verify(said.sha256)?;
    Ok(Arrived {
        name,
        content_type,
        said,
        bytes,
    })
}

async fn take_file(
    state: &State,
    caller: &Identity,
    source: &Source,
    field: Field<'_>,
    name: FileName,
) -> Result<(FileName, String, StagedBytes), Problem> {
    require_plain(field.headers())?;
    let given = field.headers().get(header::CONTENT_TYPE);
    let given = given.map(|value| value.to_str().unwrap_or("?"));
    let content_type = upload_fields::content_type(given)?;
    let lists = &state.app.config.uploads;
    media_policy::require_declared(lists, name.as_str(), &content_type)?;
    let own = declared(field.headers())?;
    let said = DeclaredContent {
        name: name.as_str().to_owned(),
        content_type,
    };
    let guard = ContentGuard::new(lists, said, None, true, Vec::new());
    let passing = guard.watch(field.inspect(|_| source.passed()));
    let bytes = staged_body::stage(state, caller, passing, None).await?;
    bytes.verify(own)?;
    Ok((name, guard.verdict()?, bytes))
}

/// True of the one client that encodes the whole of a name and does not say so: its own word for itself is all that
/// tells its `a%20b` from another's.
fn encodes_names(headers: &HeaderMap) -> bool {
    let agent = headers.get(header::USER_AGENT);
    let agent = agent.and_then(|agent| agent.to_str().ok());
    agent.is_some_and(|agent| agent.contains("aiohttp/"))
}

/// A file's part is taken as it is: one that is encoded would be stored encoded (RFC 7578, section 4.7, has no such
/// parts any more).
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
        "A part with an encoding is not decoded here; send the bytes as they are.",
    ))
}

async fn text(source: &Source, mut field: Field<'_>, name: &str) -> Result<String, Problem> {
    let mut bytes = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(|error| refused(&error))? {
        if bytes.len() + chunk.len() > Said::limit(name) {
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
            crate::api::connection::body::broken_off(cause.as_ref())
        }
        // The only free text in them is the name.
        multer::Error::ReadHeaderFailed(httparse::Error::HeaderValue) => Problem::field(
            Code::InvalidName,
            "filename",
            "the part's headers contain a control character; only printable text is allowed",
        ),
        other => Problem::new(
            Code::MalformedRequest,
            format!("The form is not valid multipart/form-data (RFC 7578): {other}."),
        ),
    }
}

/// The boundary of a form.
pub(super) fn boundary(content_type: &str) -> Result<String, Problem> {
    let boundary = multer::parse_boundary(content_type).ok();
    boundary
        .filter(|boundary| (1..=LONGEST_BOUNDARY).contains(&boundary.len()))
        .ok_or_else(|| {
            Problem::new(
                Code::MalformedRequest,
                "`Content-Type: multipart/form-data` needs a boundary of 1 to 70 characters.",
            )
        })
}

/// The body of a form: handed to the parser piece by piece, since it keeps whatever it can get.
#[derive(Clone)]
struct Source(Arc<Mutex<Body>>);

struct Body {
    bytes: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>,
    /// The last call gave a piece, so this one makes the parser work on it.
    given: bool,
    /// Bytes given since something useful last came out of the parser.
    pending: u64,
    hasher: Option<Sha256>,
}

impl Source {
    fn new(bytes: impl Stream<Item = io::Result<Bytes>> + Send + 'static, hash: bool) -> Self {
        Self(Arc::new(Mutex::new(Body {
            bytes: Box::pin(bytes),
            given: false,
            pending: 0,
            hasher: hash.then(Sha256::new),
        })))
    }

    /// The parser has handed out what it was given.
    fn passed(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pending = 0;
    }

    /// Compares the digest of the whole body, up to its very end, with the one in the request's headers.
    async fn check(mut self, declared: Option<Sha256Digest>) -> Result<(), Problem> {
        let Some(declared) = declared else {
            return Ok(());
        };
        while let Some(piece) = self.next().await {
            piece.map_err(|error| crate::api::connection::body::broken_off(&error))?;
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

impl Stream for Source {
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
        match body.pending > BESIDES {
            true => Poll::Ready(Some(Err(io::Error::other(FormError)))),
            false => Poll::Ready(Some(Ok(bytes))),
        }
    }
}
