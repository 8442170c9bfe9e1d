//! The server: the HTTP API, the dashboard, the command line, and how a process is started and stopped.

pub mod api;
pub mod cli;
mod dashboard;
pub mod server;
pub mod telemetry;
