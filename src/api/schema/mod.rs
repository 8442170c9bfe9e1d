//! The types of requests and responses, as documented in `/openapi.json`. Converted from rows, never rows themselves.

mod batch;
mod event;
mod file;
mod page;
mod problem;
mod token;
mod upload;
mod upload_link;
mod webhook;

pub use batch::{Batch, BatchStatus, NewBatch};
pub use event::{Attempt, Delivery, DeliveryStatus, Event, EventStatus, Redelivery, Replayed};
pub use file::{File, FileError, FileStatus};
pub use page::Page;
pub use problem::{FieldError, Problem};
pub use token::{NewToken, Token};
pub use upload::{NewUpload, Part, Session, SessionStatus};
pub use upload_link::{LinkFile, NewUploadLink, UploadLink, UploadLinkState, UploadLinkStatus};
pub use webhook::{NewWebhook, Replay, Webhook, WebhookPatch};
