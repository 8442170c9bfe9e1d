//! Real servers for tests, on loopback and free ports.
//!
//! A server ends with the value that owns it, and at the latest with the test process, however
//! that ends: SIGKILL included. A server whose binary is missing is a panic that says how to get
//! it, never a skipped test.

mod background;
mod listener;
mod lock;
mod port;
mod postgres;
mod receiver;
mod redis;
mod s3;
mod wait;
mod watchdog;

pub use postgres::{Durability, PostgresServer};
pub use receiver::{Behaviour, Received, Receiver};
pub use redis::RedisServer;
pub use s3::{OpenUpload, S3Operation, S3Options, S3Server};
pub use wait::wait_until;
