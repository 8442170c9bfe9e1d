//! Exports spans to an OpenTelemetry collector: OTLP over HTTP, in its JSON encoding (opentelemetry-proto, "JSON
//! Protobuf Encoding").
//!
//! Exports the spans of requests, finalize runs and delivery attempts, with the fields that are logged: ids, routes,
//! statuses; never names, bodies or secrets. An unreachable collector only costs its spans.

use landfall_core::{config, trace_context};
use opentelemetry::{
    Array, KeyValue, Value,
    trace::{
        SpanContext, SpanId, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
        TracerProvider,
    },
};
use opentelemetry_sdk::{
    error::{OTelSdkError, OTelSdkResult},
    trace::{Sampler, SdkTracer, SdkTracerProvider, SpanData, SpanExporter},
};
use reqwest::Client;
use serde_json::json;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::runtime::Handle;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use url::Url;
use uuid::Uuid;

/// The exported spans and their kinds (opentelemetry-proto, `SpanKind`): server, consumer, client.
const EXPORTED_SPANS: [(&str, u8); 3] = [("request", 2), ("store", 5), ("attempt", 3)];

/// Timeout of an export.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// The span exporter of this process. Call [`Traces::end`], or the last spans are lost.
#[derive(Debug)]
pub struct Traces(SdkTracerProvider);

impl Traces {
    /// Starts exporting, if an endpoint is configured. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// If the HTTP client or the URL cannot be created.
    pub fn start(config: &config::TracesConfig) -> anyhow::Result<Option<Self>> {
        let Some(endpoint) = &config.endpoint else {
            return Ok(None);
        };
        let base = endpoint.as_str().trim_end_matches('/');
        let exporter = Exporter {
            url: format!("{base}/v1/traces").parse()?,
            client: Client::builder().timeout(EXPORT_TIMEOUT).build()?,
            runtime: Handle::current(),
            instance: Uuid::now_v7().to_string(),
        };
        let ratio = f64::from(config.sample_percent) / 100.0;
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio)));
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(sampler)
            .build();
        trace_context::install(trace_context::TraceHooks {
            follow,
            traceparent,
        });
        Ok(Some(Self(provider)))
    }

    /// The tracer for the tracing layer.
    #[must_use]
    pub fn tracer(&self) -> SdkTracer {
        self.0.tracer("landfall")
    }

    /// Exports the remaining spans.
    pub async fn end(self) {
        // Shutdown waits for its own thread, which waits for this runtime, so it must not block it.
        let ended = tokio::task::spawn_blocking(move || self.0.shutdown());
        if let Ok(Err(error)) = ended.await {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

/// Whether a span is exported.
#[must_use]
pub fn is_exported(metadata: &tracing::Metadata<'_>) -> bool {
    metadata.is_span()
        && metadata.target().starts_with("landfall")
        && EXPORTED_SPANS
            .iter()
            .any(|(name, _)| *name == metadata.name())
}

fn follow(span: &Span, traceparent: &str) {
    if let Some(parent) = read(traceparent) {
        let context = opentelemetry::Context::new().with_remote_span_context(parent);
        if let Err(error) = span.set_parent(context) {
            tracing::debug!(%error, "the span starts a new trace");
        }
    }
}

fn traceparent(span: &Span) -> Option<String> {
    let context = span.context();
    let span = context.span();
    let span_context = span.span_context();
    span_context.is_valid().then(|| {
        let flags = span_context.trace_flags().to_u8();
        format!(
            "00-{}-{}-{flags:02x}",
            span_context.trace_id(),
            span_context.span_id()
        )
    })
}

/// Parses a `traceparent` of version 00.
fn read(traceparent: &str) -> Option<SpanContext> {
    let fields: Vec<&str> = traceparent.split('-').collect();
    let ["00", trace, span, flags] = fields[..] else {
        return None;
    };
    let context = SpanContext::new(
        TraceId::from_hex(trace).ok()?,
        SpanId::from_hex(span).ok()?,
        TraceFlags::new(u8::from_str_radix(flags, 16).ok()?),
        true,
        TraceState::NONE,
    );
    context.is_valid().then_some(context)
}

#[derive(Debug)]
struct Exporter {
    url: Url,
    client: Client,
    /// The runtime of the process: batches come from a thread without one.
    runtime: Handle,
    instance: String,
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let body = self.encoded(&batch);
        let request = self.client.post(self.url.clone()).json(&body);
        let sent = self.runtime.spawn(async move {
            let answer = request.send().await?;
            answer.error_for_status().map(drop)
        });
        let failed = match sent.await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.without_url().to_string(),
            Err(_) => "the process is ending".to_owned(),
        };
        Err(OTelSdkError::InternalFailure(failed))
    }
}

impl Exporter {
    fn encoded(&self, batch: &[SpanData]) -> serde_json::Value {
        let spans: Vec<serde_json::Value> = batch.iter().map(span).collect();
        let resource = [
            KeyValue::new("service.name", "landfall"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", self.instance.clone()),
        ];
        json!({ "resourceSpans": [{
            "resource": { "attributes": attributes(&resource) },
            "scopeSpans": [{ "scope": { "name": "landfall" }, "spans": spans }],
        }] })
    }
}

fn span(data: &SpanData) -> serde_json::Value {
    let kind = EXPORTED_SPANS.iter().find(|(name, _)| *name == data.name);
    let kind = kind.map_or(1, |(_, kind)| *kind);
    let mut encoded = json!({
        "traceId": data.span_context.trace_id().to_string(),
        "spanId": data.span_context.span_id().to_string(),
        "name": data.name,
        "kind": kind,
        "startTimeUnixNano": nanoseconds(data.start_time),
        "endTimeUnixNano": nanoseconds(data.end_time),
        "attributes": attributes(&data.attributes),
        "status": status(data),
    });
    if data.parent_span_id != SpanId::INVALID {
        encoded["parentSpanId"] = json!(data.parent_span_id.to_string());
    }
    encoded
}

/// A server error is an error of the span.
fn status(data: &SpanData) -> serde_json::Value {
    let http_status = data.attributes.iter().find_map(|attribute| {
        let is_status = attribute.key.as_str() == "http.status";
        match attribute.value {
            Value::I64(status) if is_status => Some(status),
            _ => None,
        }
    });
    match (&data.status, http_status) {
        (Status::Error { .. }, _) | (_, Some(500..)) => json!({ "code": 2 }),
        _ => json!({}),
    }
}

/// Uses the names of OpenTelemetry's semantic conventions where they exist.
fn attributes(attributes: &[KeyValue]) -> Vec<serde_json::Value> {
    let encode = |attribute: &KeyValue| {
        let key = match attribute.key.as_str() {
            "http.method" => "http.request.method",
            "http.status" => "http.response.status_code",
            other => other,
        };
        json!({ "key": key, "value": value(&attribute.value) })
    };
    attributes.iter().map(encode).collect()
}

fn value(value: &Value) -> serde_json::Value {
    match value {
        Value::Bool(value) => json!({ "boolValue": value }),
        // 64-bit numbers are strings in this encoding.
        Value::I64(value) => json!({ "intValue": value.to_string() }),
        Value::F64(value) => json!({ "doubleValue": value }),
        Value::Array(Array::String(values)) => {
            let values: Vec<_> = values
                .iter()
                .map(|value| json!({ "stringValue": value.as_str() }))
                .collect();
            json!({ "arrayValue": { "values": values } })
        }
        other => json!({ "stringValue": other.as_str() }),
    }
}

fn nanoseconds(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_nanos().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_valid_traceparent_is_followed() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = read(good).unwrap();
        assert!(context.is_remote() && context.is_sampled());
        for bad in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-xyz-01",
        ] {
            assert!(read(bad).is_none(), "{bad}");
        }
    }
}
