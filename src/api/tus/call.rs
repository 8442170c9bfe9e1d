//! One request to `/v1/tus`, taken apart.

use super::{
    checksum,
    headers::{self, HeaderError},
};
use crate::api::{
    metrics::Metrics,
    problem::{Code, Problem},
};
use entity::{UploadId, upload::Model};
use futures::{StreamExt, TryStreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use landfall_core::{
    app::App,
    tokens::Identity,
    uploads::{self, Append, Checksum, UploadBytes},
};
use poem::Body;
use std::time::Instant;

/// A request, whoever's protocol it speaks.
pub(super) struct Call {
    pub(super) app: App,
    pub(super) metrics: Metrics,
    pub(super) caller: Identity,
    pub(super) traceparent: Option<String>,
    pub(super) headers: HeaderMap,
    /// The upload in the path, if there is one and it could be one.
    pub(super) id: Option<UploadId>,
    pub(super) body: Body,
}

impl Call {
    /// Sizes, offsets and other headers that are text.
    pub(super) fn text(&self, name: &HeaderName) -> Result<Option<&str>, Problem> {
        headers::text(&self.headers, name).map_err(Problem::from)
    }

    pub(super) fn size(&self, name: &HeaderName) -> Result<Option<u64>, Problem> {
        headers::size(&self.headers, name).map_err(Problem::from)
    }

    /// The media type, in lower case and without its parameters.
    pub(super) fn media_type(&self) -> String {
        let value = self.headers.get(header::CONTENT_TYPE);
        let text = value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let essence = text.split(';').next().unwrap_or_default();
        essence.trim().to_ascii_lowercase()
    }

    /// What the client says the body has, in bytes.
    pub(super) fn content_length(&self) -> Option<u64> {
        let value = self.headers.get(header::CONTENT_LENGTH)?;
        value.to_str().ok()?.parse().ok()
    }

    /// True when bytes are to come, as HTTP says it (RFC 9112, section 6.3).
    pub(super) fn has_body(&self) -> bool {
        match self.content_length() {
            Some(length) => length > 0,
            None => self.headers.contains_key(header::TRANSFER_ENCODING),
        }
    }

    pub(super) fn checksum(&self) -> Result<Option<Checksum>, Problem> {
        let text = self.text(&headers::UPLOAD_CHECKSUM)?;
        text.map(checksum::parse).transpose().map_err(Problem::from)
    }

    /// The upload in the path, or why there is none.
    pub(super) fn id(&self) -> Result<UploadId, Problem> {
        self.id.ok_or_else(|| Problem::not_found("upload"))
    }

    /// The upload in the path, if it is still there.
    pub(super) async fn upload(&self) -> Result<Model, Problem> {
        let id = self.id()?;
        let found = uploads::settled_offset(&self.app, &self.caller.sees(), id).await;
        let upload = found.map_err(super::refuse::problem)?;
        super::refuse::require_there(&upload, self.app.clock.now())?;
        Ok(upload)
    }

    pub(super) async fn append(
        &mut self,
        id: UploadId,
        append: Append,
    ) -> Result<Model, uploads::UploadError> {
        let body = counted(std::mem::take(&mut self.body), self.metrics.clone());
        let begun = Instant::now();
        let appended = uploads::append(&self.app, &self.caller.sees(), id, append, body).await;
        self.metrics.staged(appended.is_ok(), begun.elapsed());
        appended
    }
}

fn counted(body: Body, metrics: Metrics) -> UploadBytes {
    let bytes = body.into_bytes_stream().map_err(Into::into);
    bytes
        .inspect_ok(move |bytes| metrics.received(bytes.len() as u64))
        .boxed()
}

impl From<HeaderError> for Problem {
    fn from(error: HeaderError) -> Self {
        Self::new(Code::MalformedRequest, error.to_string())
    }
}

/// Where an upload is, in this server.
pub(super) fn location(id: UploadId) -> HeaderValue {
    value(format!("/v1/tus/{id}"))
}

/// A header value of what is known to be printable ASCII.
pub(super) fn value(text: impl AsRef<str>) -> HeaderValue {
    HeaderValue::from_str(text.as_ref()).unwrap_or_else(|_| HeaderValue::from_static(""))
}
