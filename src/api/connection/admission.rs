//! How many connections there may be: in all, so that the process keeps descriptors for what the open ones do, and of
//! one address, so that no single client takes them all.
//!
//! A connection too many is answered 503, or 429 when its address has too many, without its request being read.

use landfall_core::config::{self, IpNet};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::AsyncReadExt,
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
};

/// Descriptors kept for what is no connection: database, Redis, storage, webhooks, the listener itself.
const RESERVED_DESCRIPTORS: u64 = 256;

/// What one connection may need: itself, the file it is staged to, and one read from storage.
const DESCRIPTORS_EACH: u64 = 3;

/// So many bits of an IPv6 address are one client's.
const CLIENT_BITS: u32 = 64;

/// Refused connections that may still read their answer, and for how long: one that is reset does not.
const MAX_LINGERING: usize = 64;
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_LINGER_BYTES: u64 = 64 * 1024;

/// How often the log says that connections are refused.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// See the module; clones count together.
#[derive(Clone, Debug)]
pub(super) struct Admission(Arc<AdmissionState>);

#[derive(Debug)]
struct AdmissionState {
    all: Arc<Semaphore>,
    per_address: u32,
    /// Proxies bring the connections of many.
    proxies: Vec<IpNet>,
    by_address: Mutex<HashMap<IpAddr, u32>>,
    lingering: AtomicUsize,
    log: ThrottledLog,
}

/// The right to serve one connection, until it is dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    _place: OwnedSemaphorePermit,
    of_address: Option<(Arc<AdmissionState>, IpAddr)>,
}

/// Why a connection is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RejectReason {
    /// There are as many as there may be.
    Full,
    /// Its address has as many as one may have.
    OfAddress,
}

impl Admission {
    pub(super) fn new(server: &config::ServerConfig) -> Self {
        let most = server.max_connections.min(affordable());
        if most < server.max_connections {
            tracing::warn!(
                configured = server.max_connections,
                most,
                "fewer connections are taken than server.max_connections, for want of file descriptors (ulimit -n)"
            );
        }
        Self(Arc::new(AdmissionState {
            all: Arc::new(Semaphore::new(most)),
            per_address: server.max_connections_per_address,
            proxies: server.trusted_proxies.clone(),
            by_address: Mutex::default(),
            lingering: AtomicUsize::new(0),
            log: ThrottledLog::default(),
        }))
    }

    /// Takes a place for a connection from this address.
    pub(super) fn admit(&self, remote: SocketAddr) -> Result<ConnectionPermit, RejectReason> {
        let inner = &self.0;
        let place = Arc::clone(&inner.all)
            .try_acquire_owned()
            .map_err(|_| RejectReason::Full)?;
        let address = remote.ip().to_canonical();
        if inner.proxies.iter().any(|proxy| proxy.contains(&address)) {
            return Ok(ConnectionPermit {
                _place: place,
                of_address: None,
            });
        }
        let client = client(address);
        let mut by_address = inner.by_address();
        let open = by_address.entry(client).or_default();
        if *open >= inner.per_address {
            return Err(RejectReason::OfAddress);
        }
        *open += 1;
        Ok(ConnectionPermit {
            _place: place,
            of_address: Some((Arc::clone(inner), client)),
        })
    }

    /// Answers a connection that is not served, as far as that costs nothing, and closes it.
    pub(super) fn refuse(&self, socket: TcpStream, refused: RejectReason) {
        let inner = &self.0;
        inner.log.warn(match refused {
            RejectReason::Full => "connections were refused: there are server.max_connections",
            RejectReason::OfAddress => {
                "connections were refused: an address has server.max_connections_per_address"
            }
        });
        if socket.try_write(refused.answer().as_bytes()).is_err() {
            return;
        }
        if inner.lingering.fetch_add(1, Ordering::Relaxed) >= MAX_LINGERING {
            inner.lingering.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let inner = Arc::clone(inner);
        tokio::spawn(async move {
            let mut rest = socket.take(MAX_LINGER_BYTES);
            let mut nowhere = tokio::io::sink();
            let reading = tokio::io::copy(&mut rest, &mut nowhere);
            // It is closed whatever came of it.
            let _ = tokio::time::timeout(LINGER_TIMEOUT, reading).await;
            inner.lingering.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// What accept(2) failed with, not more often than once a second.
    pub(super) fn not_accepted(&self, error: &std::io::Error) {
        self.0
            .log
            .warn(&format!("a connection could not be accepted: {error}"));
    }
}

impl AdmissionState {
    fn by_address(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let Some((inner, client)) = self.of_address.take() else {
            return;
        };
        let mut by_address = inner.by_address();
        if let Some(open) = by_address.get_mut(&client) {
            *open = open.saturating_sub(1);
            if *open == 0 {
                by_address.remove(&client);
            }
        }
    }
}

impl RejectReason {
    fn answer(self) -> String {
        let (status, code, detail) = match self {
            Self::Full => (
                "503 Service Unavailable",
                "unavailable",
                "The server has as many connections as it takes; try again soon.",
            ),
            Self::OfAddress => (
                "429 Too Many Requests",
                "rate_limited",
                "Your address has as many connections as one may have.",
            ),
        };
        let number = &status[..3];
        let body = format!(
            r#"{{"type":"about:blank","title":"Too many connections","status":{number},"code":"{code}","detail":"{detail}","errors":[]}}"#
        );
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\nx-request-id: {}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            uuid::Uuid::now_v7(),
            body.len()
        )
    }
}

/// What one client's addresses have in common.
fn client(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(long) => {
            Ipv6Addr::from_bits(long.to_bits() & (u128::MAX << (128 - CLIENT_BITS))).into()
        }
    }
}

/// How many connections the process has descriptors for.
fn affordable() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let Some(descriptors) = limit.current else {
        return usize::MAX;
    };
    let left = descriptors.saturating_sub(RESERVED_DESCRIPTORS.min(descriptors / 2));
    usize::try_from(left / DESCRIPTORS_EACH)
        .unwrap_or(usize::MAX)
        .max(1)
}

/// One line a second, with how often it happened since the last.
#[derive(Debug, Default)]
struct ThrottledLog(Mutex<(Option<Instant>, u64)>);

impl ThrottledLog {
    fn warn(&self, message: &str) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.1 += 1;
        if state.0.is_some_and(|last| last.elapsed() < LOG_INTERVAL) {
            return;
        }
        tracing::warn!(times = state.1, "{message}");
        *state = (Some(Instant::now()), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(most: usize, per_address: u32) -> Admission {
        Admission(Arc::new(AdmissionState {
            all: Arc::new(Semaphore::new(most)),
            per_address,
            proxies: vec!["10.0.0.0/8".parse().unwrap()],
            by_address: Mutex::default(),
            lingering: AtomicUsize::new(0),
            log: ThrottledLog::default(),
        }))
    }

    fn from(address: &str) -> SocketAddr {
        SocketAddr::new(address.parse().unwrap(), 1)
    }

    #[test]
    fn places_are_as_many_as_there_are_and_come_back() {
        let admission = admission(3, 2);
        let first = admission.admit(from("192.0.2.1")).unwrap();
        let _second = admission.admit(from("192.0.2.1")).unwrap();
        let third = admission.admit(from("192.0.2.1"));
        assert_eq!(third.unwrap_err(), RejectReason::OfAddress);
        let _other = admission.admit(from("192.0.2.2")).unwrap();
        let full = admission.admit(from("192.0.2.3"));
        assert_eq!(full.unwrap_err(), RejectReason::Full);
        drop(first);
        let _again = admission.admit(from("192.0.2.1")).unwrap();
        assert_eq!(admission.0.by_address().len(), 2);
    }

    #[test]
    fn networks_of_one_client_are_one_and_proxies_are_none() {
        let admission = admission(9, 1);
        let _one = admission.admit(from("2001:db8:1:2::1")).unwrap();
        let same = admission.admit(from("2001:db8:1:2:ffff::1"));
        assert_eq!(same.unwrap_err(), RejectReason::OfAddress);
        let _proxied = [(); 5].map(|()| admission.admit(from("10.1.1.1")).unwrap());
    }
}
