//! Connection limits: in total, so that file descriptors remain for the work of open connections, and per address, so
//! that no single client uses up all of them.
//!
//! A connection beyond the total is answered with 503, and one beyond the limit of its address with 429, before its
//! request is read.

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

/// File descriptors reserved for everything other than client connections: database, Redis, storage, webhooks, the
/// listener.
const RESERVED_DESCRIPTORS: u64 = 256;

/// File descriptors one connection may need: the socket, the file it stages to, and one for reading from storage.
const DESCRIPTORS_EACH: u64 = 3;

/// The prefix length by which IPv6 addresses are grouped into clients.
const CLIENT_BITS: u32 = 64;

/// Maximum number of rejected connections that may still read their response, and for how long. Closing a connection at
/// once would reset it, and the client would not see the response.
const MAX_LINGERING: usize = 64;
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_LINGER_BYTES: u64 = 64 * 1024;

/// Minimum interval between log lines about rejected connections.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// See the module. Clones share their counters.
#[derive(Clone, Debug)]
pub(super) struct Admission(Arc<AdmissionState>);

#[derive(Debug)]
struct AdmissionState {
    all: Arc<Semaphore>,
    per_address: u32,
    /// Trusted proxies carry the connections of many clients, so they have no limit per address.
    proxies: Vec<IpNet>,
    by_address: Mutex<HashMap<IpAddr, u32>>,
    lingering: AtomicUsize,
    log: ThrottledLog,
}

/// A permit to serve one connection, released on drop.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    _place: OwnedSemaphorePermit,
    of_address: Option<(Arc<AdmissionState>, IpAddr)>,
}

/// Why a connection is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RejectReason {
    /// The total limit is reached.
    Full,
    /// The limit of its address is reached.
    OfAddress,
}

impl Admission {
    pub(super) fn new(server: &config::ServerConfig) -> Self {
        let max = server.max_connections.min(affordable());
        if max < server.max_connections {
            tracing::warn!(
                configured = server.max_connections,
                max,
                "too few file descriptors (ulimit -n): accepting fewer connections than server.max_connections"
            );
        }
        Self(Arc::new(AdmissionState {
            all: Arc::new(Semaphore::new(max)),
            per_address: server.max_connections_per_address,
            proxies: server.trusted_proxies.clone(),
            by_address: Mutex::default(),
            lingering: AtomicUsize::new(0),
            log: ThrottledLog::default(),
        }))
    }

    /// Acquires a permit for a connection from this address.
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

    /// Sends the rejection, as far as that is cheap, and closes the connection.
    pub(super) fn refuse(&self, socket: TcpStream, refused: RejectReason) {
        let inner = &self.0;
        inner.log.warn(match refused {
            RejectReason::Full => "connections were rejected: server.max_connections reached",
            RejectReason::OfAddress => {
                "connections were rejected: server.max_connections_per_address reached"
            }
        });
        if socket.try_write(refused.response().as_bytes()).is_err() {
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
            // The connection is closed whether or not this succeeded.
            let _ = tokio::time::timeout(LINGER_TIMEOUT, reading).await;
            inner.lingering.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// Logs an error of accept(2), at most once per second.
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
    fn response(self) -> String {
        let (status, code, detail) = match self {
            Self::Full => (
                "503 Service Unavailable",
                "unavailable",
                "The server has reached its connection limit. Try again soon.",
            ),
            Self::OfAddress => (
                "429 Too Many Requests",
                "rate_limited",
                "Your address has reached its connection limit.",
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

/// Returns the address that stands for the client: for IPv6 its network prefix.
fn client(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(long) => {
            Ipv6Addr::from_bits(long.to_bits() & (u128::MAX << (128 - CLIENT_BITS))).into()
        }
    }
}

/// The number of connections for which the process has file descriptors.
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

/// Logs at most one line per interval, with the number of occurrences since the last one.
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

    fn admission(max: usize, per_address: u32) -> Admission {
        Admission(Arc::new(AdmissionState {
            all: Arc::new(Semaphore::new(max)),
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
