//! Landfall's domain: files come in, are verified, stored and announced. No HTTP server, no job runner.

pub mod batches;
pub mod clock;
pub mod config;
pub mod context;
pub mod db;
pub mod deliver;
pub mod digest;
pub mod dispatch;
pub mod failpoint;
pub mod files;
pub mod finalize;
pub mod idempotency;
pub mod outbox;
pub mod overview;
pub mod page;
pub mod repairs;
pub mod seed;
pub mod sessions;
pub mod staging;
pub mod storage;
pub mod sweep;
pub mod tokens;
pub mod uploads;
mod walk;
pub mod webhooks;
