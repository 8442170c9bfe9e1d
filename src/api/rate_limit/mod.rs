//! Rate limits per address and per owner: requests per second, concurrent uploads, bytes per day.
//!
//! Owns what is counted and the text of rejections; a [`Counters`] stores the counts. The address is checked before
//! anything else, the owner once the token is known. Without any limit nothing is counted.

mod bytes;
mod headers;
mod memory;
pub(super) mod redis;

use super::{
    problem::{Code, Problem},
    tus,
};
pub(super) use bytes::counted;
use futures::future::BoxFuture;
use headers::RateLimitHeaders;
use http::{HeaderMap, HeaderValue, Method, header};
use landfall_core::config::{self, ClientLimits};
pub use memory::LocalCounters;
use poem::Request;
use std::{
    fmt,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use uuid::Uuid;

/// How long an upload keeps its slot without renewal.
pub const SLOT_LEASE: Duration = Duration::from_secs(60);

/// How often an upload in progress renews its slot.
const RENEW_INTERVAL: Duration = Duration::from_secs(20);

/// The prefix length by which IPv6 addresses are grouped into clients.
const CLIENT_BITS: u32 = 64;

/// Whether a request is within the rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimitDecision {
    pub allowed: bool,
    /// Remaining requests in the current burst.
    pub left: u64,
    /// Time until the next request is allowed; zero if it is allowed now.
    pub retry_after: Duration,
    /// Time until the full burst is available again.
    pub full_after: Duration,
}

/// Storage of counts. Every call has a short timeout and always returns a result, because requests wait for it.
pub trait Counters: fmt::Debug + Send + Sync {
    /// Counts one request of `subject`, at `per_second` with bursts of `burst`.
    fn check_rate<'a>(
        &'a self,
        subject: &'a str,
        per_second: u32,
        burst: u32,
    ) -> BoxFuture<'a, RateLimitDecision>;

    /// Adds bytes to today's count of `subject`, and returns the total.
    fn add<'a>(&'a self, subject: &'a str, bytes: u64) -> BoxFuture<'a, u64>;

    /// Acquires or renews one of `max` upload slots of `subject`; false if none is free.
    fn acquire<'a>(&'a self, subject: &'a str, upload: Uuid, max: u32) -> BoxFuture<'a, bool>;

    /// Releases an upload slot.
    fn release<'a>(&'a self, subject: &'a str, upload: Uuid) -> BoxFuture<'a, ()>;
}

/// What a limit applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SubjectKind {
    Owner,
    Address,
}

impl SubjectKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Address => "address",
        }
    }
}

/// The rate limits of one request, held until its response is sent and its body ends.
#[derive(Clone, Debug)]
pub(crate) struct RequestLimits(Arc<RequestLimitsInner>);

#[derive(Debug)]
struct RequestLimitsInner {
    counters: Arc<dyn Counters>,
    limits: config::LimitsConfig,
    /// The upload slot, if the request sends bytes.
    upload: Option<Uuid>,
    sent: AtomicU64,
    /// The subjects to which bytes and slots are charged.
    charged: Mutex<Vec<ChargedSubject>>,
    headers: Mutex<RateLimitHeaders>,
}

#[derive(Clone, Debug)]
struct ChargedSubject {
    subject: String,
    bytes: bool,
    slot: Option<u32>,
}

impl RequestLimits {
    /// The limits of a request to `/v1` or to a page, or `None` if nothing is limited. Uses the effective method.
    /// Offset requests (tus, HEAD) are never limited: the most common client takes any rejection for the end of the
    /// upload and starts over.
    pub(super) fn for_request(
        counters: &Arc<dyn Counters>,
        limits: &config::LimitsConfig,
        request: &Request,
    ) -> Option<Self> {
        let path = request.uri().path();
        let is_limited = limited(&limits.owner) || limited(&limits.address);
        let is_free = request.method() == Method::OPTIONS || tus::is_offset_request(request);
        if !is_limited || !is_limited_path(path) || is_free {
            return None;
        }
        Some(Self(Arc::new(RequestLimitsInner {
            counters: Arc::clone(counters),
            limits: limits.clone(),
            upload: sends_bytes(request.method(), path).then(Uuid::now_v7),
            sent: AtomicU64::new(0),
            charged: Mutex::default(),
            headers: Mutex::default(),
        })))
    }

    /// Checks the limits of the address.
    ///
    /// # Errors
    /// 429.
    pub(super) async fn admit_address(&self, address: IpAddr) -> Result<(), Problem> {
        let limit = self.0.limits.address;
        self.admit(SubjectKind::Address, &client(address), limit)
            .await
    }

    /// Checks the limits of the owner.
    ///
    /// # Errors
    /// 429.
    pub(crate) async fn admit_owner(&self, owner: &str) -> Result<(), Problem> {
        let limit = self.0.limits.owner;
        self.admit(SubjectKind::Owner, owner, limit).await
    }

    async fn admit(
        &self,
        kind: SubjectKind,
        who: &str,
        limit: ClientLimits,
    ) -> Result<(), Problem> {
        let (inner, subject) = (&self.0, format!("{}:{who}", kind.as_str()));
        if let Some(rate) = limit.requests_per_second {
            let decision = inner
                .counters
                .check_rate(&subject, rate.get(), limit.burst)
                .await;
            lock(&inner.headers).requests(kind.as_str(), limit.burst, rate.get(), decision);
            if !decision.allowed {
                let per = rate.get();
                return Err(refused(
                    format!("Each {} may send {per} requests per second.", kind.as_str()),
                    decision.retry_after,
                ));
            }
        }
        let Some(upload) = inner.upload else {
            return Ok(());
        };
        if let Some(max) = limit.bytes_per_day {
            let used = inner.counters.add(&subject, 0).await;
            let day_ends = until_tomorrow();
            lock(&inner.headers).bytes(kind.as_str(), max.0, used, day_ends);
            if used >= max.0 {
                return Err(refused(
                    format!("Each {} may send {max} per day (UTC).", kind.as_str()),
                    day_ends,
                ));
            }
        }
        if let Some(max) = limit.concurrent_uploads
            && !inner.counters.acquire(&subject, upload, max.get()).await
        {
            return Err(refused(
                format!("Each {} may have {max} concurrent uploads.", kind.as_str()),
                Duration::from_secs(1),
            ));
        }
        lock(&inner.charged).push(ChargedSubject {
            subject,
            bytes: limit.bytes_per_day.is_some(),
            slot: limit.concurrent_uploads.map(std::num::NonZeroU32::get),
        });
        self.renew();
        Ok(())
    }

    /// Renews the slots while the upload is in progress; called once for owner and address.
    fn renew(&self) {
        let charged = lock(&self.0.charged);
        let slots = charged.iter().filter(|one| one.slot.is_some()).count();
        let newest = charged.last().is_some_and(|one| one.slot.is_some());
        if slots != 1 || !newest {
            return;
        }
        let alive = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(RENEW_INTERVAL).await;
                let Some(inner) = alive.upgrade() else { return };
                let (charged, upload) = (lock(&inner.charged).clone(), inner.upload);
                for ChargedSubject { subject, slot, .. } in charged {
                    if let (Some(max), Some(upload)) = (slot, upload) {
                        inner.counters.acquire(&subject, upload, max).await;
                    }
                }
            }
        });
    }

    /// Whether the request's body must be counted.
    pub(super) fn counts_bytes(&self) -> bool {
        self.0.upload.is_some()
    }

    fn sent(&self, bytes: u64) {
        self.0.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Adds the rate limit headers to the response.
    pub(super) fn write_headers(&self, response: &mut HeaderMap) {
        lock(&self.0.headers).write(response);
    }
}

impl Drop for RequestLimitsInner {
    fn drop(&mut self) {
        let charged = std::mem::take(&mut *lock(&self.charged));
        let (Some(upload), Ok(runtime)) = (self.upload, tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let (counters, sent) = (
            Arc::clone(&self.counters),
            self.sent.load(Ordering::Relaxed),
        );
        if charged.is_empty() {
            return;
        }
        runtime.spawn(async move {
            for one in charged {
                if one.bytes && sent > 0 {
                    counters.add(&one.subject, sent).await;
                }
                if one.slot.is_some() {
                    counters.release(&one.subject, upload).await;
                }
            }
        });
    }
}

fn limited(limit: &ClientLimits) -> bool {
    limit.requests_per_second.is_some()
        || limit.concurrent_uploads.is_some()
        || limit.bytes_per_day.is_some()
}

/// Monitoring and static assets are never limited.
fn is_limited_path(path: &str) -> bool {
    !matches!(path, "/healthz" | "/readyz" | "/metrics") && !path.starts_with("/assets/")
}

/// Uploads of whole files, parts, and by tus and the IETF draft, including those of the dashboard and by upload links.
fn sends_bytes(method: &Method, path: &str) -> bool {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    match segments[..] {
        ["v1", "files"] => method == Method::POST,
        ["v1", "uploads", _, "parts", _] => method == Method::PUT,
        ["v1", "links", _] => method == Method::POST || method == Method::PUT,
        ["v1" | "upload", "tus", ..] | ["v1", "links", _, "tus", ..] => {
            method == Method::POST || method == Method::PATCH
        }
        _ => false,
    }
}

/// Returns the subject of an address: for IPv6 its network prefix.
fn client(address: IpAddr) -> String {
    match address {
        IpAddr::V4(_) => address.to_string(),
        IpAddr::V6(long) => {
            let network = long.to_bits() & (u128::MAX << (128 - CLIENT_BITS));
            format!("{}/{CLIENT_BITS}", std::net::Ipv6Addr::from_bits(network))
        }
    }
}

fn refused(detail: String, wait: Duration) -> Problem {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    Problem::new(Code::RateLimited, detail)
        .with_header(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)))
}

/// Days since 1970, part of the key of a daily count.
#[must_use]
pub fn today() -> i64 {
    chrono::Utc::now().timestamp().div_euclid(DAY)
}

const DAY: i64 = 24 * 60 * 60;

fn until_tomorrow() -> Duration {
    let into_day = chrono::Utc::now().timestamp().rem_euclid(DAY);
    Duration::from_secs((DAY - into_day).unsigned_abs())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_send_bytes_are_told_by_method_and_path() {
        for (method, path, sends) in [
            (Method::POST, "/v1/files", true),
            (Method::GET, "/v1/files", false),
            (Method::PUT, "/v1/uploads/1/parts/2", true),
            (Method::POST, "/v1/uploads/1/complete", false),
            (Method::PATCH, "/v1/tus/1", true),
            (Method::PUT, "/v1/links/s", true),
            (Method::GET, "/v1/links/s", false),
            (Method::PATCH, "/v1/links/s/tus/1", true),
            (Method::HEAD, "/v1/tus/1", false),
            (Method::PATCH, "/upload/tus/1", true),
            (Method::POST, "/upload/tus", true),
            (Method::POST, "/sign-in", false),
            (Method::POST, "/v1/webhooks", false),
        ] {
            assert_eq!(sends_bytes(&method, path), sends, "{method} {path}");
        }
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_client() {
        let of = |text: &str| client(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3::4"), "2001:db8:1:2::/64");
        assert_eq!(of("2001:db8:1:2::"), of("2001:db8:1:2:ffff::1"));
        assert_eq!(of("192.0.2.1"), "192.0.2.1");
    }
}
