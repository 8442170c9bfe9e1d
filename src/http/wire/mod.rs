//! What goes over the wire, as documented in `/openapi.json`. Made from rows, never a row itself.

mod event;
mod file;
mod page;
mod problem;
mod webhook;

pub use event::{Attempt, Delivery, DeliveryStatus, Event, EventStatus, Redelivery, Replayed};
pub use file::{File, FileError, FileStatus};
pub use page::Page;
pub use problem::{FieldError, Problem};
pub use webhook::{NewWebhook, Replay, Webhook, WebhookPatch};
