//! The webhook request: body and headers according to the Standard Webhooks specification.

use crate::{
    outbox::EventType,
    trace_context,
    webhooks::{
        headers,
        sealing::{SealError, Sealing},
        signing::{InvalidSecret, SigningSecret, signatures},
    },
};
use bytes::Bytes;
use entity::{Timestamp, outbox_event, webhook_endpoint};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CONTENT_TYPE, InvalidHeaderValue, USER_AGENT},
};
use serde::Serialize;
use tracing::Span;

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("Landfall/", env!("CARGO_PKG_VERSION")));

/// Why no request can be built. Except for a sealed secret, the next attempt fails the same way.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error("the endpoint's secret cannot be used; rotate it")]
    Secret(#[from] InvalidSecret),
    /// This process does not have the key yet, or no longer has it.
    #[error("the endpoint's secret cannot be opened")]
    Sealed(#[from] SealError),
    #[error("the event cannot be written as JSON")]
    Body(#[from] serde_json::Error),
    #[error("the event's id is not a valid header value")]
    Header(#[from] InvalidHeaderValue),
}

/// Must be sent unchanged: the signature covers exactly these bytes.
#[derive(Debug)]
pub(super) struct SignedRequest {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

#[derive(Serialize)]
struct WebhookBody<'a> {
    r#type: &'a str,
    timestamp: Timestamp,
    data: &'a serde_json::Value,
}

/// Builds the request of an attempt made `at` that time. The timestamp in the body is the event's, the one in the
/// header is the attempt's.
pub(super) fn build(
    event: &outbox_event::Model,
    endpoint: &webhook_endpoint::Model,
    sealing: &Sealing,
    at: Timestamp,
) -> Result<SignedRequest, RequestError> {
    let body = serde_json::to_vec(&WebhookBody {
        r#type: &event.event_type,
        timestamp: event.created_at,
        data: &event.payload,
    })?;
    let id = event.id.to_string();
    let of = endpoint.id.to_string();
    let secret = |stored: &str| -> Result<SigningSecret, RequestError> {
        Ok(SigningSecret::parse(&sealing.open(&of, stored)?)?)
    };
    let mut secrets = vec![secret(&endpoint.secret)?];
    let still_signs = endpoint
        .previous_secret_expires_at
        .is_some_and(|end| at < end);
    if let Some(previous) = endpoint.previous_secret.as_deref().filter(|_| still_signs) {
        secrets.push(secret(previous)?);
    }
    // Their names are none of those below, except for the user agent.
    let mut headers = headers::open(sealing, endpoint.id, endpoint.headers.as_deref())?;
    headers.entry(USER_AGENT).or_insert(AGENT);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(WEBHOOK_ID, HeaderValue::try_from(&id)?);
    headers.insert(WEBHOOK_TIMESTAMP, at.timestamp().into());
    headers.insert(
        WEBHOOK_SIGNATURE,
        HeaderValue::try_from(signatures(&secrets, &id, at, &body))?,
    );
    // The trace context of the attempt's own span, or else the client's. Values that are not valid in a header are
    // omitted.
    let trace = trace_context::traceparent(&Span::current()).or_else(|| event.traceparent.clone());
    if let Some(trace) = trace.and_then(|text| text.parse().ok()) {
        headers.insert(TRACEPARENT, trace);
    }
    Ok(SignedRequest {
        headers,
        body: body.into(),
    })
}

/// Whether this is the event that tests an endpoint.
pub(super) fn is_test(event: &outbox_event::Model) -> bool {
    event.event_type == EventType::WebhookTest.as_str()
}
