//! Webhook endpoints: who is told, and what their deliveries are signed with.

pub mod signing;
