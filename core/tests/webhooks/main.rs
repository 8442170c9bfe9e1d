//! Outbox, webhook endpoints and deliveries, over SQLite and PostgreSQL, against a real receiver.

mod support;

mod again;
mod answers;
mod endpoints;
mod events;
mod leases;
mod requests;
