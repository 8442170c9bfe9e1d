//! Tests the queue against a real Redis. Each module is a behaviour; `setup` is shared.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod addresses;
mod bounds;
mod chaos;

mod groups;
mod inspecting;
mod leases;
mod limiting;
mod lost_keys;
mod old_layout;
mod outages;
mod process;
mod proxy;
mod pushing;
mod retrying;
mod running;
mod setup;
mod waking;
