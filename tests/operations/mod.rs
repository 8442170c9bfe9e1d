//! What operators see: metrics, dashboards and alerts, and faults in `/readyz`.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod draining;
mod failover;
mod logs;
mod metrics;
mod poolers;
mod proxies;
mod readiness;
mod rolling;
mod traces;
mod webhook_headers;
mod webhook_proxy;
