//! Files: taking one in, finding it, deleting it, retrying it.
//!
//! Owns the rows of `files` outside a finalize run. Bytes are elsewhere: `staging` and `storage`.

mod accept;
mod delete;
mod expiring;
mod life;
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

pub use accept::{AcceptError, Intake, NewFile, accept};
pub use delete::{DeleteError, delete};
pub use expiring::{ExpiringError, announce_expiring};
pub use life::{Life, Moment, What, life};
pub use list::{FEW, FileFilter, list};
pub use name::{FileName, InvalidName, MAX_NAME_CHARS};
pub use pieces::{PiecesError, StagedItem, staged_pieces, staging_column};
pub use progress::{Progress, progress};
pub(crate) use purge::UNPURGED;
pub use purge::{PurgeError, Purged, purge};
pub use query::{Scope, counts_by_status, get, oldest_staged};
pub use retry::{FinalizeNowError, RetryError, finalize_now, retry, retryable_until};
pub use retry_matching::{
    MAX_RETRIED, RetriedFiles, RetryForecast, forecast_retry, retry_matching,
};
pub use staging_use::staging_in_use;
