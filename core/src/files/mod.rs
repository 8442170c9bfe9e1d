//! Files: taking one in, finding it, deleting it.
//!
//! Owns the rows of `files` outside a finalize run. Bytes are elsewhere: `staging` and `storage`.

mod accept;
mod delete;
mod expiring;
mod name;
mod pieces;
mod purge;
mod query;

pub use accept::{AcceptError, NewFile, accept};
pub use delete::{DeleteError, delete};
pub use expiring::{ExpiringError, announce_expiring};
pub use name::{FileName, InvalidName, MAX_NAME_BYTES};
pub use pieces::{NotPieces, pieces, staging_column};
pub use purge::{PurgeError, Purged, purge};
pub use query::{FileFilter, Scope, counts_by_status, get, list, oldest_staged};
