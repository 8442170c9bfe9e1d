//! Uploads that arrive in pieces: numbered parts in any order, or bytes at an offset. One engine for all protocols.
//!
//! Owns the rows of `uploads` and `parts`, and the row of the file while it is `uploading`. Knows nothing of HTTP:
//! sessions, tus and the IETF draft are faces in front of it. An upload, its file and its staging key have one id.
//!
//! **Architecture invariant.** `bytes_received` never says more than is durable in staging: bytes are synced first and
//! counted afterwards, by one compare-and-set on the offset and the writer's fence. What a crash leaves in staging
//! beyond the offset is cut off by the next append.
//!
//! | a crash after | leaves | repaired by |
//! | --- | --- | --- |
//! | staging was prepared | staging that no row knows | the sweep, after `staging.grace` |
//! | a small upload was staged, not linked | the same | the same |
//! | bytes were synced, or linked | surplus in staging, a lease of a few seconds | the next append, or the expiry |
//! | the last byte was counted | a staged file without a job | the sweep pushes it |
//! | an upload was given up, here or on another node | staging of a closed upload | the sweep removes it |

mod append;
mod at_once;
mod close;
mod concat;
mod create;
mod error;
mod expire;
mod finish;
mod guard;
mod hold;
mod lease;
mod ledger;
mod part;
mod plan;
mod query;
mod ranges;
mod source;

pub use append::{Append, Checksum, append};
pub use close::abort;
pub use concat::{MAX_PARTIALS, concatenate};
pub use create::{NewUpload, Shape, create};
pub use error::UploadError;
pub use expire::{expire_due, forget_closed};
pub use finish::complete;
pub use ledger::Ledger;
pub use part::{NewPart, PutPart, put_part};
pub use plan::{MAX_CHUNK, MAX_PARTS, MIN_CHUNK, chunk_size};
pub(crate) use query::is_joined;
pub use query::{find, get, settled_offset, staged, status_at};
pub use ranges::Ranges;
pub use source::Bytestream;
