//! How much one client may do: requests a second, uploads at once, bytes a day, of each address and each owner.
//!
//! Owns what is counted and what a refusal says; where the counts are kept is a [`Counters`]. An address is looked at
//! before anything else of a request, an owner once a token has told who it is. With no limit set, nothing is
//! counted.

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

/// How long a slot is kept for an upload whose process says nothing more of it.
pub const SLOT_LEASE: Duration = Duration::from_secs(60);

/// How often an upload that goes on says so.
const RENEW_EVERY: Duration = Duration::from_secs(20);

/// So many bits of an IPv6 address are one client's.
const CLIENT_BITS: u32 = 64;

/// What came of asking for one more request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimitDecision {
    pub allowed: bool,
    /// How many more may come at once.
    pub left: u64,
    /// How long to wait until one may come; zero when one may.
    pub retry_after: Duration,
    /// How long until as many may come at once as ever.
    pub full_after: Duration,
}

/// Where counts are kept. Every call ends soon by itself and answers something: a request must not wait for a count.
pub trait Counters: fmt::Debug + Send + Sync {
    /// One more request of `subject`, at `per_second` with `burst` at once.
    fn take<'a>(
        &'a self,
        subject: &'a str,
        per_second: u32,
        burst: u32,
    ) -> BoxFuture<'a, RateLimitDecision>;

    /// So many more bytes of `subject` today; all of today is answered.
    fn add<'a>(&'a self, subject: &'a str, bytes: u64) -> BoxFuture<'a, u64>;

    /// An upload of `subject` begins or goes on, of `most` at once; false when there is no room for it.
    fn acquire<'a>(&'a self, subject: &'a str, upload: Uuid, most: u32) -> BoxFuture<'a, bool>;

    /// An upload is over.
    fn release<'a>(&'a self, subject: &'a str, upload: Uuid) -> BoxFuture<'a, ()>;
}

/// What a limit is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Owner,
    Address,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Address => "address",
        }
    }
}

/// The limits of one request, until it is answered and its body is over.
#[derive(Clone, Debug)]
pub(crate) struct RequestLimits(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    counters: Arc<dyn Counters>,
    limits: config::LimitsConfig,
    /// Of a request that sends bytes.
    upload: Option<Uuid>,
    sent: AtomicU64,
    /// Whom the bytes and the slots are charged to.
    charged: Mutex<Vec<Charged>>,
    told: Mutex<RateLimitHeaders>,
}

#[derive(Clone, Debug)]
struct Charged {
    subject: String,
    bytes: bool,
    slot: Option<u32>,
}

impl RequestLimits {
    /// For a request to `/v1` or to a page, unless nothing is limited; its method is the effective one. Whoever asks how
    /// far its upload is (tus, HEAD) is never put off: the common client takes any refusal for the end of the upload and
    /// begins again.
    pub(super) fn of(
        counters: &Arc<dyn Counters>,
        limits: &config::LimitsConfig,
        request: &Request,
    ) -> Option<Self> {
        let path = request.uri().path();
        let is_limited = limited(&limits.owner) || limited(&limits.address);
        let is_free = request.method() == Method::OPTIONS || tus::is_look(request);
        if !is_limited || !is_limited_path(path) || is_free {
            return None;
        }
        Some(Self(Arc::new(Inner {
            counters: Arc::clone(counters),
            limits: limits.clone(),
            upload: sends_bytes(request.method(), path).then(Uuid::now_v7),
            sent: AtomicU64::new(0),
            charged: Mutex::default(),
            told: Mutex::default(),
        })))
    }

    /// Whether the address may.
    ///
    /// # Errors
    /// 429.
    pub(super) async fn admit_address(&self, address: IpAddr) -> Result<(), Problem> {
        let limit = self.0.limits.address;
        self.admit(Kind::Address, &client(address), limit).await
    }

    /// Whether the owner may.
    ///
    /// # Errors
    /// 429.
    pub(crate) async fn admit_owner(&self, owner: &str) -> Result<(), Problem> {
        let limit = self.0.limits.owner;
        self.admit(Kind::Owner, owner, limit).await
    }

    async fn admit(&self, kind: Kind, who: &str, limit: ClientLimits) -> Result<(), Problem> {
        let (inner, subject) = (&self.0, format!("{}:{who}", kind.as_str()));
        if let Some(rate) = limit.requests_per_second {
            let taken = inner.counters.take(&subject, rate.get(), limit.burst).await;
            lock(&inner.told).requests(kind.as_str(), limit.burst, rate.get(), taken);
            if !taken.allowed {
                let per = rate.get();
                return Err(refused(
                    format!("Each {} may send {per} requests per second.", kind.as_str()),
                    taken.retry_after,
                ));
            }
        }
        let Some(upload) = inner.upload else {
            return Ok(());
        };
        if let Some(most) = limit.bytes_per_day {
            let used = inner.counters.add(&subject, 0).await;
            let day_ends = until_tomorrow();
            lock(&inner.told).bytes(kind.as_str(), most.0, used, day_ends);
            if used >= most.0 {
                return Err(refused(
                    format!("Each {} may send {most} per day (UTC).", kind.as_str()),
                    day_ends,
                ));
            }
        }
        if let Some(most) = limit.concurrent_uploads
            && !inner.counters.acquire(&subject, upload, most.get()).await
        {
            return Err(refused(
                format!("Each {} may have {most} concurrent uploads.", kind.as_str()),
                Duration::from_secs(1),
            ));
        }
        lock(&inner.charged).push(Charged {
            subject,
            bytes: limit.bytes_per_day.is_some(),
            slot: limit.concurrent_uploads.map(std::num::NonZeroU32::get),
        });
        self.renew();
        Ok(())
    }

    /// Keeps the slots for as long as the upload goes on; once is enough for owner and address.
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
                tokio::time::sleep(RENEW_EVERY).await;
                let Some(inner) = alive.upgrade() else { return };
                let (charged, upload) = (lock(&inner.charged).clone(), inner.upload);
                for Charged { subject, slot, .. } in charged {
                    if let (Some(most), Some(upload)) = (slot, upload) {
                        inner.counters.acquire(&subject, upload, most).await;
                    }
                }
            }
        });
    }

    /// True when the request's body is to be counted.
    pub(super) fn counts_bytes(&self) -> bool {
        self.0.upload.is_some()
    }

    fn sent(&self, bytes: u64) {
        self.0.sent.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Says in the answer what is left.
    pub(super) fn tell(&self, answer: &mut HeaderMap) {
        lock(&self.0.told).write(answer);
    }
}

impl Drop for Inner {
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

/// Whoever watches the service is never kept waiting, and what pages are made of costs nothing.
fn is_limited_path(path: &str) -> bool {
    !matches!(path, "/healthz" | "/readyz" | "/metrics") && !path.starts_with("/assets/")
}

/// Whole files, parts, and what tus and the draft send, of the dashboard's visitors too.
fn sends_bytes(method: &Method, path: &str) -> bool {
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    match segments[..] {
        ["v1", "files"] => method == Method::POST,
        ["v1", "uploads", _, "parts", _] => method == Method::PUT,
        ["v1" | "upload", "tus", ..] => method == Method::POST || method == Method::PATCH,
        _ => false,
    }
}

/// What one client's addresses have in common.
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

/// Days since 1970, by which sums are named.
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
