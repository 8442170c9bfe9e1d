//! Files: accepting, finding, deleting and retrying them.
//!
//! Owns the rows of `files` outside of finalize runs. Bytes are handled by [`crate::staging`] and [`crate::storage`].

mod accept;
mod delete;
mod expiring;
mod history;
mod list;
mod name;
mod pieces;
mod progress;
mod purge;
mod query;
mod retry;
mod retry_matching;
pub(crate) mod segments;
mod staging_use;

pub use accept::{AcceptError, FileIntake, NewFile, accept};
pub use delete::{DeleteError, delete};
pub use expiring::{ExpiringError, announce_expiring};
pub use history::{FileHistory, HistoryEntry, HistoryEvent, history};
pub use list::{FileFilter, NEWEST_FIRST_LIMIT, list};
pub use name::{FileName, InvalidName, MAX_NAME_CHARS};
pub use pieces::{PiecesError, StagedItem, staged_pieces, staging_column};
pub use progress::{FileProgress, progress};
pub(crate) use purge::UNPURGED;
pub use purge::{PurgeError, PurgeOutcome, purge};
pub use query::{OwnerScope, counts_by_status, get, oldest_staged};
pub use retry::{FinalizeNowError, RetryError, finalize_now, retry, retryable_until};
pub use retry_matching::{
    BulkRetryPreview, BulkRetryResult, MAX_RETRIED, preview_retry, retry_matching,
};
pub use staging_use::staging_in_use;
