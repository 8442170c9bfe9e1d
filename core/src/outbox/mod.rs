//! The outbox: events to be announced, and to which endpoints they have been delivered.
//!
//! Owns events and their deliveries as rows: writing, listing, redelivering and deleting them. It sends nothing (that
//! is [`crate::deliver`]). Only [`replay`], which works in pages, pushes jobs itself; other callers push the deliveries
//! that a call returned as due.
//!
//! **Architecture invariant.** After every commit, `pending_deliveries` and `failed_deliveries` of an event equal the
//! number of its deliveries in that status, and its status follows from them. Code that changes the status of
//! deliveries therefore locks their events first, in the order of their ids, and changes both in one transaction. The
//! lock order is always events, deliveries, endpoints.

pub(crate) mod counters;
mod health;
mod payload;
mod query;
mod redelivery;
mod replay_preview;
mod retention;
mod subscription;
mod write;

pub use health::{EndpointHealth, FailedAttempt, HEALTH_DELIVERIES, health};
pub use payload::{
    BatchComplete, EventType, FileDeleted, FileExpiring, FileStored, UnknownEventType, WebhookTest,
};
pub use query::{
    ATTEMPTS_SHOWN, COUNT_LIMIT, DELIVERIES_SHOWN, DeliveryCounts, DeliveryDetail, EventDetail,
    EventFilter, counts, deliveries, endpoint_counts, event_deliveries, get, list,
};
pub use redelivery::{RedeliveryError, ReplayRequest, redeliver, replay};
pub use replay_preview::{REPLAY_PREVIEW_LIMIT, ReplayPreview, preview_replay};
pub use retention::delete_old;
use subscription::Subscription;
pub(crate) use write::write_all;
pub use write::{NewEvent, WriteError, WrittenEvent, write};
