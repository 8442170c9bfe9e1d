//! Resumable uploads: numbered parts in any order, or bytes at an offset. One engine for all protocols.
//!
//! Owns the rows of `uploads` and `parts`, and the row of the file while it is `uploading`. Knows nothing of HTTP:
//! sessions, tus and the IETF draft are front ends. An upload, its file and its staging key share one id.
//!
//! **Architecture invariant.** `bytes_received` never exceeds what is durable in staging: bytes are synced first and
//! counted afterwards, by one compare-and-set on the offset and the writer's fence, which also names the segment they
//! are in. A writer never opens another writer's segment, so counted bytes do not change, however late a writer wakes
//! up.
//!
//! | a crash after | leaves | repaired by |
//! | --- | --- | --- |
//! | an empty segment was staged | a segment that no row knows | the sweep, after `staging.grace` |
//! | bytes, or a part, were synced | a segment, or the end of one, that no row lists; a lease of a few seconds | the client sends them again; the sweep |
//! | a small upload was staged, not counted | a segment that no row lists | the same |
//! | the last byte was counted | a staged file without a job | the sweep pushes it |
//! | an upload was cancelled, here or on another node | segments of a closed upload | the sweep removes them |

mod acquire;
mod append;
mod batched_writes;
mod body_stream;
mod cancel;
mod complete;
mod concat;
mod create;
mod error;
mod expire;
mod guard;
mod lease;
mod part;
mod part_plan;
mod query;
mod ranges;
mod single_append;
mod write_lease;
mod writers;

pub use append::{Append, Checksum, append};
pub use batched_writes::UploadWrites;
pub use body_stream::UploadBytes;
pub use cancel::abort;
pub use complete::complete;
pub use concat::{MAX_PARTIALS, concatenate};
pub use create::{NewUpload, UploadShape, create};
pub use error::UploadError;
pub use expire::{expire_due, forget_closed};
pub use part::{NewPart, ReceivedPart, put_part};
pub use part_plan::{MAX_PART_SIZE, MAX_PARTS, MIN_PART_SIZE, chunk_size};
pub(crate) use query::is_joined;
pub use query::{find, get, pieces, settled_offset, staged, status_at};
pub use ranges::Ranges;
