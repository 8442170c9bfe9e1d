//! Real servers for tests, on loopback and free ports.
//!
//! A server ends with the value that owns it, and at the latest with the test process, however
//! that ends: SIGKILL included. A server whose binary is missing is a panic that says how to get
//! it, never a skipped test.

mod background;
mod port;
mod postgres;
mod redis;
mod wait;
mod watchdog;

pub use postgres::{Durability, PostgresServer};
pub use redis::RedisServer;
pub use wait::wait_until;
