//! The position of a request in a distributed trace: `traceparent` (W3C Trace Context, section 3.2).

use landfall_core::trace_context;
use poem::Request;
use tracing::Span;

/// The `traceparent` for work caused by a request.
#[derive(Clone, Debug)]
pub struct TraceParent(pub String);

/// Makes the span, which has not been entered, continue the client's trace. Returns the `traceparent` for what the
/// request causes: of the span, if spans are exported, or else the client's.
pub(super) fn continue_trace(span: &Span, request: &Request) -> Option<TraceParent> {
    let client = request.header("traceparent").filter(|text| is_valid(text));
    trace_context::follow(span, client);
    let own = trace_context::traceparent(span);
    own.or_else(|| client.map(str::to_owned)).map(TraceParent)
}

/// Version 00 only: `00-<32 hex>-<16 hex>-<2 hex>`, neither id all zeros.
fn is_valid(text: &str) -> bool {
    let fields: Vec<&str> = text.split('-').collect();
    let [version, trace, parent, flags] = fields[..] else {
        return false;
    };
    let hex = |text: &str, length| {
        text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let some = |text: &str| text.bytes().any(|byte| byte != b'0');
    version == "00"
        && hex(trace, 32)
        && hex(parent, 16)
        && hex(flags, 2)
        && some(trace)
        && some(parent)
}
