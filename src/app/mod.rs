//! How a process is put together: `up`, `serve` and `worker` are the same parts, chosen by [`Roles`].
//!
//! Owns start-up order, readiness and shutdown. A process that starts has looked at its configuration, its
//! database's version and its storage; what goes away later is waited for.

mod build;
mod embedded_redis;
mod instance;
mod run;

pub use build::{Parts, assemble, connect_redis, open_staging, open_storage};
pub use embedded_redis::{EmbeddedRedis, RedisError};
pub use instance::{InstanceLock, lock_data_dir};
pub use run::{Roles, public_url, run};
