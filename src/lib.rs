//! The skin of Landfall: HTTP API, dashboard, command line, and how the processes are put together.

pub mod app;
pub mod cli;
pub mod http;
mod web;
pub mod workers_view;
