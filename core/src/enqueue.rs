//! Telling workers that there is work: a hint, never the truth.
//!
//! What must be done stands in the database before any of this is called. A call may fail, be late or be
//! repeated without harm: the sweep finds whatever was not heard. So it answers nothing, and it gives up soon:
//! a request must not wait for a Redis that is away.

use entity::{DeliveryId, FileId, Timestamp, WebhookId};
use futures::future::BoxFuture;

/// A delivery that should be attempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueDelivery {
    pub id: DeliveryId,
    /// So that one endpoint's deliveries never hold up another's.
    pub webhook_id: WebhookId,
    /// Not before; none means now.
    pub at: Option<Timestamp>,
}

/// The way to the workers.
pub trait JobSink: std::fmt::Debug + Send + Sync {
    /// These files are staged, or their lease ran out.
    fn finalize<'a>(&'a self, files: &'a [FileId]) -> BoxFuture<'a, ()>;

    /// These deliveries are due, or will be.
    fn deliver<'a>(&'a self, due: &'a [DueDelivery]) -> BoxFuture<'a, ()>;

    /// These files are final, and bytes of theirs are to be removed.
    fn purge<'a>(&'a self, files: &'a [FileId]) -> BoxFuture<'a, ()>;

    /// This file has become `stored`, `failed` or `deleted`: whoever waits for it may look.
    fn settled(&self, file: FileId) -> BoxFuture<'_, ()>;
}
