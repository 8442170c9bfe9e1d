//! What operators see: metrics and what is made of them, and faults as `/readyz` tells them.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod metrics;
mod readiness;
mod rolling;
mod traces;
