//! How a process is put together: `up`, `serve` and `worker` are the same parts, chosen by [`Roles`].
//!
//! Owns start-up order, readiness and shutdown. A process that starts has looked at its configuration, its
//! database's version and its storage; what goes away later is waited for.

mod data_dir_lock;
mod private_files;
pub mod queue_monitor;
mod redis_process;
mod router;
mod run;
mod secret_key;
mod startup;

pub use data_dir_lock::{InstanceLock, lock_data_dir};
pub use private_files::keep_private;
pub use redis_process::{EmbeddedRedis, RedisError};
pub use router::{pages, router, serve, serve_metrics};
pub use run::{Roles, public_url, run};
pub use startup::{ProcessParts, assemble, connect_redis, open_staging, open_storage};
