//! Notifies workers of new work: a hint, never the source of truth.
//!
//! The work is committed to the database before any of this is called. A notification may fail, be late or be repeated
//! without harm, because the sweep finds whatever was missed. So it returns nothing, and it gives up soon: a request
//! must not wait for an unreachable Redis.

use entity::{DeliveryId, FileId, Timestamp, WebhookId};
use futures::future::BoxFuture;

/// A delivery that should be attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueDelivery {
    pub id: DeliveryId,
    /// Groups jobs, so that one endpoint's deliveries never delay another's.
    pub webhook_id: WebhookId,
    /// Not before this time; `None` means now.
    pub at: Option<Timestamp>,
}

/// Pushes jobs to the workers.
pub trait JobSink: std::fmt::Debug + Send + Sync {
    /// These files are staged, or their lease has expired.
    fn finalize<'a>(&'a self, files: &'a [FileId]) -> BoxFuture<'a, ()>;

    /// These deliveries are due, or will be.
    fn deliver<'a>(&'a self, due: &'a [DueDelivery]) -> BoxFuture<'a, ()>;

    /// These files are final, and their remaining bytes must be removed.
    fn purge<'a>(&'a self, files: &'a [FileId]) -> BoxFuture<'a, ()>;

    /// This file has become `stored`, `failed` or `deleted`; clients that wait for it are notified.
    fn settled(&self, file: FileId) -> BoxFuture<'_, ()>;
}
