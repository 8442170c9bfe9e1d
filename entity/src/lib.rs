//! Landfall's tables: one SeaORM entity per file, ids and statuses as types.
//!
//! Contains no logic. A status changes only by a compare-and-set in `landfall-core`, and what goes over the wire is a
//! type of its own there: entities are never serialized.

pub mod attempt;
pub mod audit_entry;
pub mod batch;
pub mod cleanup_candidate;
pub mod delivery;
pub mod file;
pub mod idempotency_key;
pub mod ids;
pub mod installation;
pub mod minute_count;
pub mod outbox_event;
pub mod owner_reservation;
pub mod owner_usage;
pub mod part;
pub mod periodic_run;
pub mod secret_key_holder;
pub mod session;
pub mod staging_probe;
pub mod storage_key_owner;
pub mod token;
pub mod upload;
pub mod upload_link;
pub mod upload_link_file;
pub mod upload_segment;
pub mod webhook_endpoint;
pub mod worker_process;

pub use ids::{
    AttemptId, BatchId, DeliveryId, EventId, FileId, TokenId, UploadId, UploadLinkId, WebhookId,
};

/// A time in UTC, to the microsecond: the precision of both databases.
pub type Timestamp = chrono::DateTime<chrono::Utc>;
