//! Real servers for tests, on loopback and free ports.
//!
//! A server ends with the value that owns it, and at the latest with the test process, however
//! that ends: SIGKILL included. A server whose binary is missing is a panic that says how to get
//! it, never a skipped test.
//!
//! ```no_run
//! use std::time::Duration;
//! use landfall_test_servers::{
//!     Behaviour, PostgresServer, Receiver, RedisServer, S3Operation, S3Server, wait_until,
//! };
//!
//! # async fn example() {
//! // Shared by the whole test process: a database, or a key prefix, of the test's own.
//! let database_url = PostgresServer::shared().create_database().await;
//! let redis_url = RedisServer::shared();
//! // The test's own, since it is going to be hurt.
//! let s3 = S3Server::start().await;
//! s3.create_bucket("bucket");
//! s3.answer_lost_next(S3Operation::CompleteMultipartUpload, 1);
//! let receiver = Receiver::start().await;
//! receiver.set_next("/hook", 2, &Behaviour::retry_after(503, 1));
//! // …
//! let requests = receiver.wait_for_at("/hook", 3, Duration::from_secs(10)).await;
//! assert_eq!(requests[2].status, Some(200));
//! wait_until(Duration::from_secs(10), async || s3.open_multipart_uploads().is_empty()).await;
//! # }
//! ```

mod aws;
mod background;
mod certificates;
mod connect_proxy;
mod listener;
mod lock;
mod pgbouncer;
pub mod port;
mod postgres;
mod power;
mod receiver;
mod redis;
mod redis_groups;
mod relay;
mod reverse_proxy;
mod s3;
mod shim;
mod wait;
mod watchdog;

pub use aws::AwsServer;
pub use connect_proxy::{ConnectProxy, ConnectRequest};
pub use pgbouncer::PgBouncer;
pub use postgres::{Durability, PostgresServer};
pub use power::PowerCut;
pub use receiver::{Behaviour, Received, Receiver};
pub use redis::RedisServer;
pub use redis_groups::{RedisCluster, RedisSentinel, TlsRedisServer};
pub use relay::Relay;
pub use reverse_proxy::{ReverseProxy, ReverseProxyProgram};
pub use s3::{OpenUpload, S3Operation, S3Options, S3Quirk, S3Server, S3View};
pub use shim::limited_fs_shim;
pub use wait::wait_until;
