//! Free ports on loopback for servers that cannot be told to take "any".

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{Ipv4Addr, TcpListener};

// Below the range from which Linux (32768 on) and macOS (49152 on) take the ports of outgoing
// connections: while a server is stopped nobody's connection can be given its port, and a client
// that keeps trying to reconnect cannot connect to itself.
const FIRST: u16 = 12_000;
const LAST: u16 = 31_999;

/// A port of 127.0.0.1 that nobody listened on just now. Another process may still take it first:
/// the caller starts its server, looks whether it holds the port, and asks again if not.
pub(crate) fn free_port() -> u16 {
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
