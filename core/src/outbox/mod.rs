//! The outbox: what must be announced, and to whom it has been.
//!
//! Owns events and their deliveries as rows: writing them, listing them, making them due again, forgetting them.
//! Sends nothing (that is [`crate::deliver`]); only [`replay`], which works in pages, dispatches by itself, other
//! callers dispatch what a call returned as due.
//!
//! **Architecture invariant.** `pending_deliveries` and `failed_deliveries` of an event are the number of its
//! deliveries in that status, and its status follows from them, after every commit. So whoever changes the status
//! of deliveries locks their events first, in the order of their ids, and changes both in one transaction; events
//! before deliveries before endpoints is the order of locks everywhere.

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
    EventFilter, counts, deliveries, endpoint_counts, endpoint_deliveries, get, list,
};
pub use redelivery::{RedeliveryError, ReplayRequest, redeliver, replay};
pub use replay_preview::{REPLAY_PREVIEW_LIMIT, ReplayPreview, preview_replay};
pub use retention::delete_old;
use subscription::Subscription;
pub(crate) use write::write_all;
pub use write::{NewEvent, WriteError, WrittenEvent, write};
