//! Rate limit headers of a response: `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-10).

use super::RateLimitDecision;
use http::{HeaderMap, HeaderName, HeaderValue};
use std::time::Duration;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const STATE: HeaderName = HeaderName::from_static("ratelimit");

/// In seconds.
const DAY_SECS: u64 = 24 * 60 * 60;

/// The policies and what remains of each, as items of the two lists.
#[derive(Debug, Default)]
pub(super) struct RateLimitHeaders {
    policies: Vec<String>,
    states: Vec<String>,
}

impl RateLimitHeaders {
    pub(super) fn requests(
        &mut self,
        kind: &str,
        burst: u32,
        per_second: u32,
        decision: RateLimitDecision,
    ) {
        let window = burst.div_ceil(per_second);
        self.policies
            .push(format!("\"{kind}-requests\";q={burst};w={window}"));
        let wait = if decision.allowed {
            decision.full_after
        } else {
            decision.retry_after
        };
        self.states.push(format!(
            "\"{kind}-requests\";r={};t={}",
            decision.left,
            seconds(wait)
        ));
    }

    pub(super) fn bytes(&mut self, kind: &str, max: u64, used: u64, day_ends: Duration) {
        self.policies.push(format!(
            "\"{kind}-bytes\";q={max};qu=\"content-bytes\";w={DAY_SECS}"
        ));
        self.states.push(format!(
            "\"{kind}-bytes\";r={};t={}",
            max.saturating_sub(used),
            seconds(day_ends)
        ));
    }

    pub(super) fn write(&self, response: &mut HeaderMap) {
        for (name, items) in [(POLICY, &self.policies), (STATE, &self.states)] {
            if let (false, Ok(value)) = (items.is_empty(), HeaderValue::from_str(&items.join(", ")))
            {
                response.insert(name, value);
            }
        }
    }
}

fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
