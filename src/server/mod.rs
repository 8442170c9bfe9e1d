//! How a process is assembled: `up`, `serve` and `worker` use the same components, selected by [`Roles`].
//!
//! Owns start-up order, readiness and shutdown. A starting process checks its configuration, the database schema and
//! storage; what becomes unavailable later is waited for.

mod data_dir_lock;
mod private_files;
pub mod queue_monitor;
mod redis_process;
mod router;
mod run;
mod secret_key;
mod start_line;
mod startup;

pub use data_dir_lock::{InstanceLock, lock_data_dir};
pub use private_files::keep_private;
pub use redis_process::{EmbeddedRedis, RedisError};
pub use router::{pages, router, serve, serve_metrics};
pub use run::{Roles, public_url, run};
pub use startup::{ProcessParts, assemble, connect_redis, open_staging, open_storage};
