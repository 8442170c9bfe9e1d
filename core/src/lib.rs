//! Landfall's domain: files come in, are verified, stored and announced. No HTTP server, no job runner.

pub mod clock;
pub mod config;
pub mod db;
pub mod digest;
pub mod dispatch;
pub mod page;
pub mod staging;
pub mod storage;
