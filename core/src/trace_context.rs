//! Distributed traces: from the upload, via the rows of the database, to the webhook.
//!
//! Owns the trace context (W3C Trace Context, `traceparent`), which is stored in files and events. This module does not
//! know the span exporter: a process that exports spans installs [`TraceHooks`]; without them nothing here has an
//! effect, and a client's `traceparent` is passed on unchanged.

use std::sync::OnceLock;
use tracing::Span;

/// How spans are connected to the exporter.
#[derive(Clone, Copy, Debug)]
pub struct TraceHooks {
    /// Makes the span continue the trace of this `traceparent`; called before the span is entered.
    pub follow: fn(&Span, &str),
    /// Returns the `traceparent` for work caused by the span.
    pub traceparent: fn(&Span) -> Option<String>,
}

static HOOKS: OnceLock<TraceHooks> = OnceLock::new();

/// Installs the hooks of this process; only the first call has an effect.
pub fn install(hooks: TraceHooks) {
    let _ = HOOKS.set(hooks);
}

/// Makes a span, which must not have been entered yet, continue a trace.
pub fn follow(span: &Span, traceparent: Option<&str>) {
    if let (Some(hooks), Some(traceparent)) = (HOOKS.get(), traceparent) {
        (hooks.follow)(span, traceparent);
    }
}

/// Returns the `traceparent` for work caused by a span; `None` if spans are not exported.
#[must_use]
pub fn traceparent(span: &Span) -> Option<String> {
    HOOKS.get().and_then(|hooks| (hooks.traceparent)(span))
}
