//! Outbox, webhook endpoints and deliveries, over SQLite and PostgreSQL, against a real receiver.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

mod answers;
mod endpoints;
mod events;
mod leases;
mod redelivery;
mod requests;
