//! Finalize: claim, hash, store, commit. The one way a file becomes `stored`.
//!
//! | a crash after | leaves | repaired by |
//! | --- | --- | --- |
//! | the claim | an expired lease, a reserved key | the next claim, which uses the same key |
//! | part of the object | the same; on S3 perhaps an open multipart upload | the next run writes the key again; the sweep aborts the upload |
//! | the whole object | the same | the next run verifies and commits |
//! | the commit | deliveries that were not pushed, staged bytes | the sweep pushes the deliveries and deletes the bytes |
//!
//! **Architecture invariant.** The commit requires `lease_owner = me`, so a worker that outlived its lease cannot
//! commit.

mod batched_writes;
mod claim;
mod commit;
mod execute;
mod fault;
mod finalizer;
mod heartbeat;
pub(crate) mod key_owners;
mod key_reservation;
mod lease;
mod run_gate;
mod suspicion;

pub use claim::ClaimOutcome;
pub use finalizer::{FinalizeError, FinalizeOutcome, Finalizer};
