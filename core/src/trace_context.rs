//! Traces that run through several processes: from the upload by way of the rows to the webhook.
//!
//! Owns where a trace goes on (W3C Trace Context, as `traceparent` has it, carried in files and events). Who collects
//! spans is not known here: a process that does installs [`TraceHooks`], in any other nothing of this has an effect, and a
//! client's `traceparent` is handed on as it came.

use std::sync::OnceLock;
use tracing::Span;

/// How a collector of spans is told, and asked.
#[derive(Clone, Copy, Debug)]
pub struct TraceHooks {
    /// Lets the span go on with the trace of this `traceparent`; before the span is entered.
    pub follow: fn(&Span, &str),
    /// The `traceparent` of what the span causes.
    pub traceparent: fn(&Span) -> Option<String>,
}

static HOOKS: OnceLock<TraceHooks> = OnceLock::new();

/// Installs the hooks of this process, once; later ones have no effect.
pub fn install(hooks: TraceHooks) {
    let _ = HOOKS.set(hooks);
}

/// Lets a span, that was not entered yet, go on with a trace.
pub fn follow(span: &Span, traceparent: Option<&str>) {
    if let (Some(hooks), Some(traceparent)) = (HOOKS.get(), traceparent) {
        (hooks.follow)(span, traceparent);
    }
}

/// The `traceparent` of what a span causes; none where nobody collects spans.
#[must_use]
pub fn traceparent(span: &Span) -> Option<String> {
    HOOKS.get().and_then(|hooks| (hooks.traceparent)(span))
}
