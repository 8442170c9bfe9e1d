//! Free ports on loopback for servers that do not support port 0.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{Ipv4Addr, TcpListener};

// Below the ephemeral port ranges of Linux (from 32768) and macOS (from 49152): while a server is stopped, its port
// cannot be given to a connection, and a client that keeps reconnecting cannot connect to itself.
const FIRST: u16 = 12_000;
const LAST: u16 = 31_999;

/// Returns a port of 127.0.0.1 that was free just now. Another process may still take it first: the caller starts its
/// server, checks whether it has the port, and retries if not.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn free_port() -> u16 {
    let span = u64::from(LAST - FIRST) + 1;
    (0..1_000_u32)
        .map(|attempt| {
            // `RandomState` is seeded by the system, so two test processes try different ports.
            let offset = RandomState::new().hash_one(attempt) % span;
            FIRST + u16::try_from(offset).expect("the span of the range fits in 16 bits")
        })
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("a thousand ports of 127.0.0.1 are taken: end what listens on them")
}
