//! A parsed request to `/v1/tus`.

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
    upload_links::UploadLink,
    uploads::{self, Append, Checksum, UploadBytes},
};
use poem::Body;
use std::{sync::Arc, time::Instant};

/// A request of either protocol.
pub(super) struct TusRequest {
    pub(super) app: App,
    pub(super) metrics: Metrics,
    pub(super) caller: Identity,
    pub(super) traceparent: Option<String>,
    pub(super) headers: HeaderMap,
    /// The path of the endpoint.
    pub(super) base: String,
    /// The upload link that is the credential of the request.
    pub(super) link: Option<Arc<UploadLink>>,
    /// The id in the path, if there is a valid one.
    pub(super) id: Option<UploadId>,
    pub(super) body: Body,
}

impl TusRequest {
    /// Returns a text header.
    pub(super) fn text(&self, name: &HeaderName) -> Result<Option<&str>, Problem> {
        headers::text(&self.headers, name).map_err(Problem::from)
    }

    pub(super) fn size(&self, name: &HeaderName) -> Result<Option<u64>, Problem> {
        headers::size(&self.headers, name).map_err(Problem::from)
    }

    /// Returns the media type, in lower case and without parameters.
    pub(super) fn media_type(&self) -> String {
        let value = self.headers.get(header::CONTENT_TYPE);
        let text = value
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let essence = text.split(';').next().unwrap_or_default();
        essence.trim().to_ascii_lowercase()
    }

    /// Returns the declared length of the body, in bytes.
    pub(super) fn content_length(&self) -> Option<u64> {
        let value = self.headers.get(header::CONTENT_LENGTH)?;
        value.to_str().ok()?.parse().ok()
    }

    /// Whether the request has a body (RFC 9112, section 6.3).
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

    /// The `Location` of an upload.
    pub(super) fn location(&self, id: UploadId) -> HeaderValue {
        value(format!("{}/{id}", self.base))
    }

    /// Returns the id in the path, or 404.
    pub(super) fn id(&self) -> Result<UploadId, Problem> {
        self.id.ok_or_else(|| Problem::not_found("upload"))
    }

    /// Returns the upload in the path, if it still exists.
    pub(super) async fn upload(&self) -> Result<Model, Problem> {
        let id = self.id()?;
        let found = uploads::settled_offset(&self.app, &self.caller.sees(), id).await;
        let upload = found.map_err(super::error::problem)?;
        super::error::require_open(&upload, self.app.clock.now())?;
        Ok(upload)
    }

    pub(super) async fn append(
        &mut self,
        id: UploadId,
        append: Append,
    ) -> Result<Model, uploads::UploadError> {
        let body = counted(std::mem::take(&mut self.body), self.metrics.clone());
        let started = Instant::now();
        let appended = uploads::append(&self.app, &self.caller.sees(), id, append, body).await;
        self.metrics
            .record_staged(appended.is_ok(), started.elapsed());
        appended
    }
}

fn counted(body: Body, metrics: Metrics) -> UploadBytes {
    let bytes = body.into_bytes_stream().map_err(Into::into);
    bytes
        .inspect_ok(move |bytes| metrics.record_received(bytes.len() as u64))
        .boxed()
}

impl From<HeaderError> for Problem {
    fn from(error: HeaderError) -> Self {
        Self::new(Code::MalformedRequest, error.to_string())
    }
}

/// Converts text that is known to be printable ASCII to a header value.
pub(super) fn value(text: impl AsRef<str>) -> HeaderValue {
    HeaderValue::from_str(text.as_ref()).unwrap_or_else(|_| HeaderValue::from_static(""))
}
